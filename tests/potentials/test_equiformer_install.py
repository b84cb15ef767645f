"""What a user without the packages of EquiformerV2 is told; torch is not needed here."""

import importlib.util

import pytest

from phojax.checks import InputError
from phojax.potentials.equiformer import equiformer, official


@pytest.mark.parametrize("name", ["torch", "fairchem", "e3nn", "torch_geometric"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, name):
    found = importlib.util.find_spec
    absent = lambda n, *a: None if n == name else found(n, *a)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(InputError, match=rf"{name}.*--no-deps fairchem-core==1\.10\.0"):
        equiformer("nothing.pt")


def test_another_version_of_fairchem_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.24.0")
    with pytest.raises(InputError, match=r"2\.24\.0; expected 1\.10\.0"):
        official.official()
