"""Methods from files of a user's own: loaded, checked, and in the provenance; test_plugin_data runs the pipeline."""

import hashlib
from pathlib import Path

import pytest

from cpmlho.study.harness.progress import Progress
from cpmlho.study.harness.provenance import plugin_sha256
from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import ConfigError, RunKey, load
from cpmlho.study.report.style import style_of
from cpmlho.study.workflow import Plan

pytestmark = pytest.mark.usefixtures("registered")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/plugins"
OWN = """
from dataclasses import dataclass
from cpmlho.core.options import Search, least
from cpmlho.study.methods import method

@dataclass(frozen=True, kw_only=True)
class Own(Search):
    first: int = least(1, 2)

@method(Own, kind="search", label="Mine", colour="#123456", line=":")
def mine(problem, budget, options, past=None):
    from cpmlho.study.trials import search
    return search(problem, budget, iter([1.0]), past)
"""


def protocol(text=OWN, **changes):
    Path("own.py").write_text(text)
    return load([ROOT / "config.yaml", ROOT / "tests/smoke.yaml"], {"plugins": ["own.py"], **changes})


def test_settings_variants_and_style_come_from_the_file():
    read = protocol(
        methods={"mine": {"trials": 3}}, variants={"mine_later": {"base": "mine", "settings": {"first": 5}}}
    )
    spec = read.resolve(RunKey("mnist", "mine_later", 0))
    assert (spec.algorithm, spec.trials, spec.settings.first) == ("mine", 3, 5)
    assert style_of("mine") == ("Mine", "#123456", ":")


def test_a_wrong_setting_of_it_is_one_line():
    with pytest.raises(ConfigError, match=r"^--config: methods\.mine\.first: .*, got 'a'$"):
        protocol(methods={"mine": {"first": "a"}})


def test_a_file_is_run_once():
    assert protocol(OWN + "\nprint('run')\n") == protocol()  # a second time the name would be taken


def test_without_the_file_the_method_is_unknown():
    with pytest.raises(ConfigError, match=r"unknown method mine; known: random_search, .*"):
        load([ROOT / "config.yaml"], {"run": {"methods": ["mine"]}})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", "own.py line 1: not valid Python: "),
        ("\n\n1 / 0\n", "own.py line 3: ZeroDivisionError: division by zero"),
        ("import nowhere\n", "own.py line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("open('nowhere')\n", "own.py line 1: FileNotFoundError: "),
        ("x = 1\n", "own.py: registers nothing; decorate a function with @method(...)"),
        (OWN.replace("mine", "cpmlho"), "own.py line 10: ValueError: cpmlho: a method of this name exists already"),
        (OWN + "\n1 / 0\n", "own.py line 15: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_leaves_nothing(text, says):
    before = dict(METHODS)
    with pytest.raises(ConfigError) as error:
        protocol(text)
    assert str(error.value).startswith(f"--config: plugins: {says}")
    assert "\n" not in str(error.value)
    assert before == METHODS


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["missing.py"], "plugins: missing.py: cannot be read: No such file or directory"),
        (["."], "plugins: .: cannot be read: Is a directory"),
        ("own.py", "plugins: must be a list, got 'own.py'"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(files, says):
    with pytest.raises(ConfigError) as error:
        load([ROOT / "config.yaml"], {"plugins": files})
    assert str(error.value) == f"--config: {says}"


def test_the_file_is_part_of_the_provenance_of_its_own_runs_alone():
    read = protocol()
    digest = hashlib.sha256(Path("own.py").read_bytes()).hexdigest()
    assert plugin_sha256(read.datasets["mnist"], "mine") == {"method": digest}
    assert plugin_sha256(read.datasets["mnist"], "cpmlho") == {}


def test_the_jobs_read_the_same_files():
    read = protocol()
    Plan(read).write()
    assert load([Path(Plan(read).file)]).plugins == ["own.py"]


def test_halving_takes_only_numbers_that_end_at_one_point():
    with pytest.raises(ConfigError, match=r"successive_halving\.trials: must be 1, 3, 7, 15 and so on, got 4"):
        load(
            [ROOT / "config.yaml"],
            {
                "plugins": [str(EXAMPLES / "successive_halving.py")],
                "methods": {"successive_halving": {"trials": 4}},
            },
        )


def test_halvings_trials_are_of_unlike_length():
    files = {"plugins": [str(EXAMPLES / "successive_halving.py")], "methods": {"successive_halving": {"trials": 7}}}
    spec = load([ROOT / "config.yaml"], files).resolve(RunKey("mnist", "successive_halving", 0))
    assert spec.trainings == 3  # of 4 points, 2 and 1
    lines = []
    Progress(spec, lines.append).started(spec, {"history.csv": [{"epoch": 5}]})
    assert lines[0].endswith("started, 7 trials over 21 epochs")
    assert lines[1].endswith("resuming after epoch 5/21")
