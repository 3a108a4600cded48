"""What every group of measurements is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How long to measure, and where.

    Attributes:
        quick: fewer rounds and smaller amounts, for a first look.
        folder: for everything that a measurement writes; on the disk that durable jobs are to be measured
            on. It is removed at the end.
        full: as many Airflow tasks as the targets speak of, which take long.
    """

    quick: bool
    folder: Path
    full: bool = False

    @property
    def rounds(self) -> int:
        """How often each measurement of a group is repeated, in turns with the others."""
        return 3 if self.quick else 5

    def amount(self, full: T, quick: T) -> T:
        """The one of the two that counts in this run."""
        return quick if self.quick else full

    def new_folder(self, name: str) -> Path:
        """A new empty folder; ``name`` says whose, and may be asked for again."""
        number = 1 + sum(1 for _ in self.folder.glob(f"{name}-*"))
        folder = self.folder / f"{name}-{number}"
        folder.mkdir()
        return folder
