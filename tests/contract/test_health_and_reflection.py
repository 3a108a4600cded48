"""The standard services beside version 1."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from . import wire
from .client import DEADLINE, Client, bearer, refused

SERVING = health_pb2.HealthCheckResponse.SERVING
HEALTH = "grpc.health.v1.Health"


def health(client: Client, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(client.channel).Check(request, timeout=DEADLINE).status


def reflect(client: Client, **request: str) -> reflection_pb2.ServerReflectionResponse:
    call = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=DEADLINE, metadata=client.metadata
    )
    (response,) = call
    return response


@pytest.mark.parametrize("service", ["", wire.SERVICE])
def test_health_is_served(client: Client, service: str) -> None:
    """grpc.health.v1 [is] served."""
    assert health(client, service) == SERVING


def test_health_of_an_unknown_service_is_not_found(client: Client) -> None:
    """grpc.health.v1 [is] served: as that protocol says."""
    with refused(grpc.StatusCode.NOT_FOUND):
        health(client, "no.such.Service")


def test_health_can_be_watched(client: Client) -> None:
    """grpc.health.v1 [is] served."""
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=DEADLINE
    )
    assert next(watch).status == SERVING
    watch.cancel()


def test_reflection_lists_the_services(client: Client) -> None:
    """server reflection [is] served."""
    services = {service.name for service in reflect(client, list_services="").list_services_response.service}
    assert {wire.SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection"} <= services


def reflected_file(client: Client, **request: str) -> descriptor_pb2.FileDescriptorProto:
    files = reflect(client, **request).file_descriptor_response.file_descriptor_proto
    return descriptor_pb2.FileDescriptorProto.FromString(files[0])


@pytest.mark.parametrize(
    "request_by",
    [{"file_containing_symbol": wire.SERVICE}, {"file_by_filename": "RemSvc.proto"}],
    ids=["symbol", "file"],
)
def test_the_reflected_descriptors_are_those_of_version_1(client: Client, request_by: dict[str, str]) -> None:
    """Wire, version 1 (proto3, file RemSvc.proto, package RS, service RemSvc): Version 1 never changes."""
    reflected, expected = reflected_file(client, **request_by), wire.file_descriptor()
    assert (reflected.name, reflected.package, reflected.syntax) == ("RemSvc.proto", "RS", "proto3")
    assert shape(reflected) == shape(expected)


def shape(file: descriptor_pb2.FileDescriptorProto) -> tuple[dict, dict]:
    """Everything of a file that the wire knows."""
    messages = {
        message.name: sorted((field.number, field.name, field.type, field.label) for field in message.field)
        for message in file.message_type
    }
    methods = {
        method.name: (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
        for service in file.service
        if service.name == "RemSvc"
        for method in service.method
    }
    return messages, methods


def test_health_needs_no_token_and_reflection_does(serve, connect) -> None:
    """Load balancers ask for health without a token; reflection shows what is there, to callers alone."""
    server = serve("[auth]\nprod = right-token\n")
    stranger = connect(server.target)
    assert health(stranger) == SERVING
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        reflect(stranger, list_services="")
    assert reflect(
        connect(server.target, bearer("right-token")), list_services=""
    ).list_services_response.service


def test_an_unknown_method_is_unimplemented(client: Client) -> None:
    """New capabilities go into new services: clients find out by UNIMPLEMENTED."""
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        client.channel.unary_unary(f"/{wire.SERVICE}/NoSuchMethod")(b"", timeout=DEADLINE)
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        client.channel.unary_unary("/no.such.Service/Method")(b"", timeout=DEADLINE)
