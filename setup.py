"""Packages of the wheel; all else is in pyproject.toml, which cannot say "found ones, and this"."""

from setuptools import find_packages, setup

# data_schemas/ lies beside the package in a checkout, and inside it where it is installed.
setup(
    packages=[*find_packages(include=["distforget", "distforget.*"]), "distforget.data_schemas"],
    package_dir={"distforget.data_schemas": "data_schemas"},
)
