import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.slow
def test_the_python_of_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    namespace = {}
    exec("\n".join(blocks).replace("300_000", "4_096"), namespace)
    welfare, assignment = capsys.readouterr().out.splitlines()[:2]
    assert 0 <= float(welfare) <= 91.04
    assert sorted(set(re.findall(r"\d", assignment))) == ["0", "1", "2", "3", "4"]
    assert namespace["result"].summary["upper_bound"] == 91.04
    assert namespace["info"].welfare.shape == (8,)
    assert namespace["action"].shape == ()
    assert (tmp_path / "runs" / "first" / "result.json").exists()


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z0-9]+@", README)


def test_the_files_it_points_to_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    for link in links:
        assert (Path(__file__).parent.parent / link).exists(), link
