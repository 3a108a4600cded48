"""Apache Airflow provider: run commands on other machines through a RemSvc server."""

from __future__ import annotations

from remsvc_provider.get_provider_info import get_provider_info

__all__ = ["get_provider_info"]
