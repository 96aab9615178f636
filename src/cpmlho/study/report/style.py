"""How methods and hyperparameters are named and drawn, in every table and figure alike."""

from typing import NamedTuple


class Style(NamedTuple):
    """A method's look; the colours are Okabe and Ito's, which colour-blind readers tell apart."""

    label: str
    colour: str
    line: str


STYLE = {
    "random_search": Style("RS", "#E69F00", ":"),
    "bayesian_optimization": Style("BO", "#009E73", "-."),
    "fixed": Style("No tuning", "#999999", "-"),
    "delta_stn": Style("Δ-STN", "#D55E00", "--"),
    "cpmlho": Style("CPMLHO", "#0072B2", "-"),
}

QUANTITIES = {
    "val_loss": "Val loss",
    "val_acc": "Val acc",
    "test_acc": "Test acc",
    "dropout0": "Dropout0",
    "dropout1": "Dropout1",
    "dropout2": "Dropout2",
    "dropout_fc": "Dropout before the classifier",
    "cutout_holes": "Cutout holes",
    "cutout_length": "Cutout length",
    "settled": "Update of settling",
    "retreat": "Retreat of dropout0",
    "course_val_loss": "Mean val loss on the way",
}


def style_of(method: str) -> Style:
    """A method's look; black for one that is not known here."""
    return STYLE.get(method, Style(method, "#000000", "-"))


def label_of(method: str) -> str:
    """A method's label; a variant's own name."""
    return style_of(method).label


def quantity_name(quantity: str) -> str:
    """A quantity as a heading; one that is not known here by its own name."""
    return QUANTITIES.get(quantity, quantity.replace("_", " ").capitalize())


def words_of(column: str) -> str:
    """A column of all runs in words, in the middle of a sentence."""
    name = quantity_name(column.removeprefix("final_").removeprefix("hyperparameter_"))
    return name[0].lower() + name[1:]
