import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.application import execute
from app.documents.files import read_document
from app.domain.retry import RetryStrategy
from app.errors import WorkflowError, WorkflowFileError
from app.workflow_files.loader import load, load_python_workflow, load_workflow_file
from tests.support.modules import forget_modules

GOOD = """\
name: invoices
description: Reads invoices.
cost_budget: 5
agents:
  - name: extract
    module: Finance
    prompt_template: "Read {invoice}."
    llm_config: &mini {model: gpt-4o-mini, max_tokens: 100}
    retry_policy:
      strategy: linear_backoff
  - name: report
    prompt_template: |
      Sum {extract.total} up as {{"sum": 1}}.
    llm_config:
      <<: *mini
      temperature: 0.3
    dependencies: [extract]
input:
  invoice: {number: 17, due: 2026-01-31}
"""
PYTHON = """\
from app.domain.agent import Agent
from app.domain.workflow import Workflow

def make(name):
    agent = Agent(name="a", prompt_template="Work.", llm_config={"model": "gpt-4o"})
    return Workflow(name=name, agents=[agent])
"""


@pytest.fixture(autouse=True)
def import_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the modules of a test's files, and the folders in which they are found."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    forget_modules(tmp_path)


def write(folder: Path, text: str | bytes, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path | str) -> WorkflowFileError:
    """Return the first mistake."""
    with pytest.raises(WorkflowError) as caught:
        load(path)
    error = caught.value.mistakes[0]
    assert isinstance(error, WorkflowFileError)
    assert error.file == str(path)
    assert "\n" not in str(error)
    return error


def test_yaml_says_all_that_python_can_say(tmp_path: Path) -> None:
    file = load_workflow_file(write(tmp_path, GOOD))

    extract, report = file.workflow.agents
    assert file.workflow.cost_budget == 5
    assert extract.module == "Finance"
    assert extract.retry_policy is not None
    assert extract.retry_policy.strategy is RetryStrategy.LINEAR_BACKOFF
    assert report.prompt_template == 'Sum {extract.total} up as {{"sum": 1}}.\n'
    assert report.llm_config == {"model": "gpt-4o-mini", "max_tokens": 100, "temperature": 0.3}
    assert report.dependencies == ["extract"]
    assert file.input == {"invoice": {"number": 17, "due": "2026-01-31"}}


def test_a_stored_definition_is_a_workflow_file_in_json(tmp_path: Path) -> None:
    workflow = load_workflow_file(write(tmp_path, GOOD)).workflow
    path = write(tmp_path, json.dumps(workflow.definition()), "flow.json")

    file = load_workflow_file(path)

    assert file.workflow.content_hash() == workflow.content_hash()
    assert file.input == {}


def test_json_may_be_indented_with_tabs_and_escape_emoji(tmp_path: Path) -> None:
    workflow = load_workflow_file(write(tmp_path, GOOD)).workflow
    workflow.description = "📄"
    path = write(tmp_path, json.dumps(workflow.definition(), indent="\t"), "flow.json")

    file = load_workflow_file(path)

    assert file.workflow.description == "📄"


@pytest.mark.parametrize(
    ("wrong", "right", "line", "field", "message"),
    [
        ("cost_budgt: 5", "cost_budget: 5", 3, "cost_budgt", "did you mean 'cost_budget'?"),
        ("    modul: X", "    module: Finance", 6, "agents[0].modul", "did you mean 'module'?"),
        ("  - nam: extract", "  - name: extract", 5, "agents[0].nam", "did you mean 'name'?"),
        (
            "    kind: functoin\n    module: Finance",
            "    module: Finance",
            6,
            "agents[0].kind",
            "agent 'extract': there is no kind 'functoin' .* did you mean 'function'?",
        ),
        ("    promt: x", "    module: Finance", 6, "agents[0].promt", "'prompt_template'?"),
        ("    module: 5", "    module: Finance", 6, "agents[0].module", "module is 5 (int)"),
        ("cost_budget: lots", "cost_budget: 5", 3, "cost_budget", "cost_budget is 'lots' (str)"),
        ("name: [a]", "name: invoices", 1, "name", "the workflow's name is ['a'] (list)"),
        (
            "strategy: linear",
            "strategy: linear_backoff",
            9,
            "agents[0].retry_policy",
            "strategy is 'linear'",
        ),
        (
            "strateg: linear_backoff",
            "strategy: linear_backoff",
            10,
            "agents[0].retry_policy.strateg",
            "did you mean 'strategy'?",
        ),
        (
            "dependencies: [extrat]",
            "dependencies: [extract]",
            17,
            "agents[1].dependencies",
            "agent 'report' depends on 'extrat', .* did you mean 'extract'?",
        ),
        ("dependencies: []", "dependencies: [extract]", 12, "agents[1].prompt_template", "add"),
        ("temperature: hot", "temperature: 0.3", 16, "agents[1].llm_config.temperature", "'hot'"),
        ("model: gtp-4o", "model: gpt-4o-mini", 8, "agents[0].llm_config.model", "unknown model"),
        ("  - invoice", "  invoice: {number: 17, due: 2026-01-31}", 18, "input", "give a mapping"),
        ("priority: 11\nagents:", "agents:", 4, "priority", "priority is 11: give a whole number"),
        ("timeout: no\nagents:", "agents:", 4, "timeout", "timeout is 'no' (str): give a number"),
    ],
)
def test_a_mistake_is_refused_with_file_line_and_field(
    tmp_path: Path, wrong: str, right: str, line: int, field: str, message: str
) -> None:
    assert GOOD.count(right) == 1 or right == "agents:"
    path = write(tmp_path, GOOD.replace(right, wrong, 1))

    error = refusal(path)

    assert (error.line, error.field) == (line, field)
    assert str(error).startswith(f"{path}:{line}: {field}: ")
    assert all(part in str(error) for part in message.split(".*"))


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1000", 1000),
        ("-1.5e3", -1500.0),
        *((text, text) for text in ("1_000", "1_0.5", "0_1", "_1")),
    ],
)
def test_a_number_in_yaml_has_no_underscores(tmp_path: Path, scalar: str, value: object) -> None:
    file = tmp_path / "input.yaml"
    file.write_text(f"key: {scalar}")

    assert read_document(file).value == {"key": value}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "is None: give a mapping with 'name', 'agents'"),
        ("- a", None, "is ['a']: give a mapping with 'name', 'agents'"),
        ("name: x", None, "the key 'agents' is missing: add it"),
        ("name: x\nagents: {a: 1}", 2, "give a list of agents"),
        ("name: x\nagents: []", 2, "agents is empty: give at least one agent"),
        ("name: x\nagents:\n  - extract", 3, "is 'extract': give a mapping with 'name'"),
        ("name: x\nagents:\n  - name: a", 3, "the key 'prompt_template' is missing"),
        ("name: x\nname: y", 2, "the key 'name' occurs twice, first in line 1"),
        ("name: x\n1: y", 2, "the key 1 is not a string: write '1'"),
        ("name: x\nagents: *a", 2, "the alias *a is not defined above it"),
        ("name: x\nagents: &a [*a]", 2, "the alias *a is not defined above it"),
        ("name: !!python/object/apply:os.system [ls]", 1, "the tag "),
        ("name: x\n---\nname: y", 2, "a second document begins"),
        ("name: x\nagents:\n\t- name: a", 3, "indent with spaces, not tabs"),
        ("name: x\nagents: [", 2, "is not valid YAML"),
        ("name: x\n\x01", 2, r"contains the control character '\x01'"),
        (b"name: x\nagents: \xff", 2, "is not UTF-8 text: save it as UTF-8"),
        ("[" * 100_000, 1, "is nested more than 100 levels deep"),
        ("name: " + "9" * 5000, 1, "name: is an integer with too many digits"),
    ],
)
def test_yaml_that_is_no_workflow_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int | None, message: str
) -> None:
    error = refusal(write(tmp_path, text))

    assert error.line == line
    assert message in str(error)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{"name": "x",\n"name": "y"}', 2, "the key 'name' occurs twice"),
        ('{"name": "x",\n"agents": [\n', 3, "is not valid JSON: "),
        ('{"name": "x",\n"cost_budget": NaN}', 2, "is NaN, which is not JSON: write null"),
        ('{"name": "x",\n"cost_budget": ' + "9" * 5000 + "}", 2, "with too many digits"),
        ('{"name": "x",\n"cost_budget": 1e400}', 2, "is too large a number"),
        ('{"name": "x",\n"agents": [],\n"cost_budge": 1}', 3, "did you mean 'cost_budget'?"),
        (
            '{"name": "x", "agents":\n[{"name":"{,", "prompt_template": "[\\"]"},\n{"priorty":1}]}',
            3,
            "did you mean 'priority'?",
        ),
        ("[" * 100_000, None, "is nested too deeply"),
    ],
)
def test_json_that_is_no_workflow_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, message: str
) -> None:
    error = refusal(write(tmp_path, text, "flow.json"))

    assert error.line == line
    assert message in str(error)


def test_aliases_cannot_make_a_small_file_huge(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    error = refusal(write(tmp_path, "\n".join(lines)))

    assert "has over 1,000,000 values, with its aliases" in str(error)


def test_a_file_over_ten_megabytes_is_refused_unread() -> None:
    with pytest.raises(WorkflowFileError, match="is over 10,000,000 bytes"):
        load_workflow_file("/dev/zero")


@pytest.mark.parametrize("name", ["missing.yaml", "missing.json", "missing.py"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path / name)

    assert "cannot be read: " in str(error)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "flow.toml")

    assert "give a .yaml, .yml, .json or .py file" in str(error)


def test_the_input_of_a_file_must_be_json(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD.replace("17", "1e999")))

    assert error.field == "input.invoice.number"
    assert error.line == 19


def test_a_python_file_may_call_its_workflow_as_it_likes(tmp_path: Path) -> None:
    path = write(tmp_path, PYTHON + "\nflow = make('only')\nINPUT = {'a': 1}\n", "flow_one.py")

    file = load(path)

    assert file.workflow.name == "only"
    assert file.input == {"a": 1}


def test_of_several_workflows_the_one_called_workflow_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, PYTHON + "\nother = make('b')\nworkflow = make('a')\n", "flow_two.py")

    assert load(path).workflow.name == "a"
    assert load(f"{path}:other").workflow.name == "b"


def test_of_several_workflows_none_is_guessed(tmp_path: Path) -> None:
    path = write(tmp_path, PYTHON + "\none = make('a')\ntwo = make('b')\n", "flow_three.py")

    error = refusal(path)

    assert f"defines several workflows, 'one', 'two': name one, such as {path}:one" in str(error)


def test_a_workflow_that_a_python_file_does_not_define_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, PYTHON + "\nflow = make('a')\n", "flow_four.py")

    with pytest.raises(WorkflowFileError, match=r"no Workflow named 'flwo'.*did you mean 'flow'"):
        load(f"{path}:flwo")


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("x = 1\n", None, "defines no Workflow: assign one to `workflow`"),
        ("def main():\n    pass\n", None, "is started with `python -m flow_broken`"),
        ("x = 1\ny = z\n", 2, "cannot be imported: NameError: name 'z' is not defined"),
        ("x = 1\ny = (\n", 2, "cannot be imported: SyntaxError"),
        ("import sys\n\nsys.exit(3)\n", 3, "cannot be imported: SystemExit: 3"),
        ("import no_such_module\n", 1, "No module named 'no_such_module'"),
        (PYTHON + "make('')\n", 6, "the workflow's name is ''"),
        (PYTHON + "workflow = make('a')\nINPUT = [1]\n", None, "INPUT is [1]: give a dict"),
        (PYTHON + "workflow = make('a')\nINPUT = {'a': {1}}\n", None, "INPUT.a is {1} (set)"),
    ],
)
def test_a_python_file_that_does_not_work_is_refused_with_its_line(
    tmp_path: Path, code: str, line: int | None, message: str
) -> None:
    error = refusal(write(tmp_path, code, "flow_broken.py"))

    assert error.line == line
    assert message in str(error)


HOSTILE = """\
import sys
class Odd:
    @property
    def __class__(self): raise {what}
    def __getattr__(self, name): raise {what}
    def __repr__(self): raise {what}
"""


@pytest.mark.parametrize("what", ["SystemExit(0)", "GeneratorExit()", "BaseException('odd')"])
@pytest.mark.parametrize(
    "code",
    [
        "raise {what}",
        "def __getattr__(name): raise {what}",
        "odd = Odd()",
        "INPUT = Odd()",
        "INPUT = {{'a': Odd()}}",
        "main = Odd()",
        "sys.modules[__name__] = Odd()",
    ],
)
def test_whatever_a_python_file_raises_is_a_refusal_in_one_line(
    tmp_path: Path, what: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, (HOSTILE + code).format(what=what), "flow_hostile.py")
    name = what.partition("(")[0]

    assert name in str(refusal(path))
    sys.modules.pop("flow_hostile", None)
    assert execute(["plan", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert name in line


def test_a_python_file_finds_the_modules_beside_it(tmp_path: Path) -> None:
    write(tmp_path, PYTHON, "flow_making.py")
    path = write(tmp_path, "from flow_making import make\nworkflow = make('a')\n", "flow_five.py")

    assert load_python_workflow(path).workflow.name == "a"


def test_a_python_file_in_a_package_is_imported_by_its_full_name(tmp_path: Path) -> None:
    package = tmp_path / "flow_package"
    package.mkdir()
    write(package, "", "__init__.py")
    path = write(package, PYTHON + "name = __name__\nworkflow = make(name)\n", "flow.py")

    assert load_python_workflow(path).workflow.name == "flow_package.flow"


@pytest.mark.parametrize("name", ["json.py", "app.py"])
def test_a_python_file_with_the_name_of_another_module_is_refused(
    tmp_path: Path, name: str
) -> None:
    error = refusal(write(tmp_path, PYTHON, name))

    assert "rename the file" in str(error)


def test_a_python_file_with_a_dot_in_its_name_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, PYTHON, "flow.v2.py"))

    assert "has a dot in its name" in str(error)
