"""The version of hrvol, spelt in pyproject.toml alone."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("hrvol")
except PackageNotFoundError:  # a checkout that is not installed
    VERSION = "0+unknown"
