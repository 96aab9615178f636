"""The names and colours of methods and quantities in every table and figure."""

from typing import NamedTuple

from cpmlho.study.methods import METHODS


class Style(NamedTuple):
    """A method's look; the colours are those of Okabe and Ito, darkened to a contrast of 3:1 on white."""

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
    """Return a method's look, as its file declares it; for a variant, its own name in black."""
    if method in METHODS:
        return Style(METHODS[method].label, METHODS[method].colour, METHODS[method].line)
    return Style(method, "#000000", "-")


def label_of(method: str) -> str:
    """Return a method's label; for a variant, its own name."""
    return style_of(method).label


def quantity_name(quantity: str) -> str:
    """Return a quantity as a heading; one that is not listed here keeps its own name."""
    return QUANTITIES.get(quantity, quantity.replace("_", " ").capitalize())


def words_of(column: str) -> str:
    """Return a column of `runs.csv` in words, as in the middle of a sentence."""
    name = quantity_name(column.removeprefix("final_").removeprefix("hyperparameter_"))
    return name[0].lower() + name[1:]
