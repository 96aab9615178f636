"""How methods and quantities are named and drawn, in every table and figure alike."""

from typing import NamedTuple

from cpmlho.study.methods import METHODS


class Style(NamedTuple):
    """A method's look; the colours are Okabe and Ito's, which colour-blind readers tell apart."""

    label: str
    colour: str
    line: str


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
    "share_by_200": "Share of the way by update 200",
    "moved_by_200": "Way from the start by update 200",
    "retreat": "Retreat of dropout0",
    "course_val_loss": "Mean val loss on the way",
}


def style_of(method: str) -> Style:
    """A method's look, as its file declares it; black and its own name for a variant that has none."""
    if method in METHODS:
        return Style(METHODS[method].label, METHODS[method].colour, METHODS[method].line)
    return Style(method, "#000000", "-")


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
