"""What Airflow's provider discovery reads (entry point ``apache_airflow_provider``)."""

from __future__ import annotations

from typing import Any

from remsvc_provider import settings
from remsvc_provider.connection import form

INTEGRATION = "RemSvc"


def get_provider_info() -> dict[str, Any]:
    """Describe this provider, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-remsvc",
        "name": INTEGRATION,
        "description": "Remote command execution for Apache Airflow via RemSvc gRPC",
        "integrations": [{"integration-name": INTEGRATION, "tags": ["service"]}],
        "operators": [
            {"integration-name": INTEGRATION, "python-modules": ["remsvc_provider.operators.remsvc"]}
        ],
        "hooks": [{"integration-name": INTEGRATION, "python-modules": ["remsvc_provider.hooks.remsvc"]}],
        "triggers": [
            {"integration-name": INTEGRATION, "python-modules": ["remsvc_provider.triggers.remsvc"]}
        ],
        "connection-types": [
            {
                "connection-type": "remsvc",
                "hook-class-name": "remsvc_provider.hooks.remsvc.RemSvcHook",
                "hook-name": "RemSvc gRPC",
                # Airflow 3.2 and later read the form from here, 3.1 asks the hook class.
                "conn-fields": form.conn_fields(),
                "ui-field-behaviour": form.ui_field_behaviour(),
            }
        ],
        "config": {
            settings.SECTION: {
                "description": "How RemSvcOperator and its trigger work.",
                "options": {setting.name: setting.describe() for setting in settings.SETTINGS},
            }
        },
    }
