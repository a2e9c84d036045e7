"""The examples of the book's page, of the package's texts and of the recipes."""

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path

import pytest

import zeg

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/src/guide/python.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.filterwarnings("ignore::zeg.ZegWarning")
def test_the_page_of_the_book(tmp_path, monkeypatch):
    shutil.copy(ROOT / "configs/mini-world/zegclip-inductive.toml", tmp_path / "experiment.toml")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    run(doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", str(PAGE), 0))


def test_the_texts_of_the_package():
    for module in pkgutil.iter_modules(zeg.__path__, "zeg."):
        if module.name not in ("zeg.__main__", "zeg._zeg"):
            for test in doctest.DocTestFinder().find(importlib.import_module(module.name)):
                run(test)
    for test in doctest.DocTestFinder().find(zeg):
        run(test)


def run(test):
    text = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=text.append)
    assert result.failed == 0, "".join(text)


def test_every_name_is_written_on_the_page():
    page = PAGE.read_text()
    for name in ["Segmenter", "segment_many", "encode", "ask", *zeg.__all__]:
        if name not in ("__version__", "Encoding", "Segmentation"):
            assert name in page, name


def test_the_stubs_name_what_the_native_module_has():
    from zeg import _zeg

    stubs = Path(_zeg.__file__).with_name("_zeg.pyi").read_text()
    for name in dir(_zeg):
        if not name.startswith("_"):
            assert re.search(rf"(class|def) {name}\b|^{name}:", stubs, re.MULTILINE), name
    assert (Path(zeg.__file__).parent / "py.typed").exists()
