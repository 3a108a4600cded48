"""What Airflow sees of the provider: its row, its connection form, and how cheap it is to import."""

from __future__ import annotations

import importlib.metadata
import json
import re
from importlib.util import find_spec
from pathlib import Path

import airflow
import jsonschema
import pytest
from packaging.version import Version

from conftest import run_python
from remsvc_provider import get_provider_info


def test_info_fits_airflows_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_entry_point():
    points = importlib.metadata.entry_points(group="apache_airflow_provider")
    point = next(point for point in points if point.value.startswith("remsvc_provider"))
    assert point.value == "remsvc_provider:get_provider_info"
    assert point.load()()["package-name"] == "airflow-provider-remsvc"


def test_providers_list():
    rows = json.loads(run_python("-m", "airflow", "providers", "list", "--output", "json"))
    row = next(row for row in rows if row["package_name"] == "airflow-provider-remsvc")
    assert row["description"] == "Remote command execution for Apache Airflow via RemSvc gRPC"
    assert row["version"] == importlib.metadata.version("airflow-provider-remsvc")


@pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2") and not find_spec("flask_appbuilder"),
    reason="Airflow 3.1 shows the form of a provider only where flask-appbuilder is installed",
)
def test_connection_form():
    # In its own interpreter: Airflow 3.1 puts stand-ins for the form libraries into sys.modules.
    program = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
form = next(x for x in HookMetaService.hook_meta_data() if x.connection_type == "remsvc")
print("FORM" + form.model_dump_json())
"""
    output = run_python("-c", program)
    form = json.loads(output.partition("FORM")[2].splitlines()[0])
    assert form["hook_name"] == "RemSvc gRPC"
    assert form["default_conn_name"] in (
        "remsvc_default",
        None,
    )  # Airflow 3.2 and later do not load the class
    extras = form["extra_fields"]
    assert list(extras) == ["use_ssl", "ca_cert_path", "bearer_token", "client_cert_path", "client_key_path"]
    assert "boolean" in extras["use_ssl"]["schema"]["type"]
    assert extras["bearer_token"]["schema"]["format"] == "password"
    for name, extra in extras.items():
        assert extra["schema"]["title"]
        assert name == "use_ssl" or "string" in extra["schema"]["type"]
    standard = form["standard_fields"]
    assert all(standard[name]["hidden"] for name in ("url_schema", "login", "password"))
    assert standard["port"]["placeholder"] == "50051"


def test_hook_is_found_by_connection_type():
    program = """
from airflow.providers_manager import ProvidersManager
info = ProvidersManager().hooks["remsvc"]
print("HOOK", info.hook_class_name, info.connection_id_attribute_name, info.hook_name)
print(info.connection_testable)
"""
    line = run_python("-c", program).partition("HOOK")[2].strip()
    assert line == "remsvc_provider.hooks.remsvc.RemSvcHook remsvc_conn_id RemSvc gRPC\nTrue"


def test_importing_is_cheap_and_silent():
    # A scheduler parses DAG files all day: they must not pay for gRPC.
    program = """
import warnings, sys
import airflow.sdk, airflow.triggers.base
before = set(sys.modules)
warnings.simplefilter("error")
import remsvc_provider
import remsvc_provider.operators.remsvc
import remsvc_provider.triggers.remsvc
import remsvc_provider.hooks.remsvc
remsvc_provider.get_provider_info()
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded & {"grpc", "cryptography", "google", "rich", "click", "remsvc_proto"}))
"""
    assert run_python("-c", program).strip().endswith("[]")


def test_operator_alone_loads_no_hook():
    program = """
import sys
import remsvc_provider.operators.remsvc
print([name for name in sys.modules if name.startswith(("grpc", "remsvc_proto", "remsvc_provider.hooks"))])
"""
    assert run_python("-c", program).strip().endswith("[]")


_WORKER = """
import sys
import airflow.sdk, airflow.triggers.base
airflow.sdk.BaseHook, airflow.sdk.BaseOperator(task_id="plain").log.info("what Airflow needs is loaded")
before = set(sys.modules)
from remsvc_provider.operators.remsvc import RemSvcOperator
operator = RemSvcOperator(task_id="task", commands=[{"cmd": "true"}])
%s
loaded = set(sys.modules) - before
print("LOADED", *sorted(name for name in loaded if name.startswith("remsvc")))
others = {name.partition(".")[0] for name in loaded}
print("OTHERS", *sorted(others & {"grpc", "google", "cryptography", "click"}))
"""
_DEFER = """
from types import SimpleNamespace
ti = SimpleNamespace(dag_id="d", run_id="r", task_id="task", map_index=-1, try_number=1, max_tries=0)
try:
    operator.execute({"ti": ti})
except BaseException as deferred:
    deferred.trigger.serialize()
else:
    raise SystemExit("was not deferred")
"""
_RESUME = """
result = {"tid": 1, "rc": 0, "out": "", "err": "", "hsh": "", "cmd": "true"}
operator.execute_complete({}, {"state": "SUCCESS", "results": {"1": result}, "error_msg": None})
"""
_NEVER = (
    "remsvc_provider.running",
    "remsvc_provider.hooks",
    "remsvc.client.",
    "remsvc_proto",
)


@pytest.mark.parametrize(
    ("work", "needless"),
    [(_DEFER, _NEVER), (_RESUME, (*_NEVER, "remsvc_provider.triggers", "remsvc_provider.origin"))],
    ids=["defers", "resumes"],
)
def test_a_worker_loads_only_what_it_needs(work: str, needless: tuple[str, ...]):
    # A deferred task starts a worker twice, and each time it pays for all that is imported.
    *_, loaded, others = run_python("-c", _WORKER % work).splitlines()
    assert loaded.startswith("LOADED ")
    assert [name for name in loaded.split() if name.startswith(needless)] == []
    assert others == "OTHERS"


def test_names_that_dags_import():
    from remsvc_provider.hooks.remsvc import RemSvcHook
    from remsvc_provider.operators.remsvc import JobState, RemSvcOperator, RemSvcResult, crc32hex
    from remsvc_provider.triggers.remsvc import RemSvcTrigger

    assert [state.value for state in JobState] == ["SUCCESS", "FAILED", "CANCELLED"]
    assert crc32hex("hello") == "3610a686"
    assert crc32hex("") == "00000000"
    assert RemSvcResult(state="SUCCESS", results=[1]).to_dict() == {
        "state": "SUCCESS",
        "results": [1],
        "error_msg": None,
    }
    assert (RemSvcHook.conn_type, RemSvcHook.conn_name_attr) == ("remsvc", "remsvc_conn_id")
    assert {"commands", "grpc_conn_id", "metadata"} <= set(RemSvcOperator.template_fields)
    assert RemSvcTrigger(commands=[]).serialize()[0] == "remsvc_provider.triggers.remsvc.RemSvcTrigger"


def test_the_dag_in_the_readme():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (printed,) = re.findall(r"^```python\n(from airflow.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    names = {}
    exec(printed.replace('schedule="@daily"):', 'schedule="@daily") as nightly:'), names)
    backup = names["nightly"].get_task("backup")
    assert [command["cmd"].split()[0] for command in backup.commands] == ["pg_dump", "df"]
