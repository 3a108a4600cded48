"""``grpc.reflection``: shows callers the services that there are, in its versions v1 and v1alpha.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2

from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Method, Requests, serialize
from remsvc.status import StatusCode

_ALPHA = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
_V1 = _ALPHA.replace("v1alpha", "v1")
_LONGEST_REQUEST = 4 * 1024
SERVICE_NAMES = (_V1, _ALPHA)


class ReflectionService:
    """Tells clients which services and messages there are.

    Both versions are the same on the wire, and differ in their package's name only.

    Args:
        services: the names of those that there are, beside this one.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = tuple(sorted((*services, *SERVICE_NAMES)))
        self._pool = descriptor_pool.Default()
        _add_v1(self._pool)

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service, in both versions."""
        request = reflection_pb2.ServerReflectionRequest
        return tuple(
            Method(f"/{name}/ServerReflectionInfo", request, _LONGEST_REQUEST, stream=self._info)
            for name in SERVICE_NAMES
        )

    async def _info(self, requests: Requests, call: Call) -> None:
        while (request := await requests.read()) is not None:
            await call.write(serialize(self._answer(request)))
            requests.answered()

    def _answer(self, request: Any) -> Any:
        answer = reflection_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                _add_files(answer, self._pool.FindFileByName(request.file_by_filename))
            elif kind == "file_containing_symbol":
                _add_files(answer, self._pool.FindFileContainingSymbol(request.file_containing_symbol))
            elif kind == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                self._pool.FindMessageTypeByName(name)
                # None: proto3 has no extensions.
                answer.all_extension_numbers_response.base_type_name = name
            else:
                raise KeyError(kind)
        except KeyError:
            answer.error_response.error_code = StatusCode.NOT_FOUND if kind else StatusCode.INVALID_ARGUMENT
            answer.error_response.error_message = "there is no such thing" if kind else "expected a question"
        return answer


def _add_files(answer: Any, file: FileDescriptor) -> None:
    answer.file_descriptor_response.file_descriptor_proto.extend(
        file.serialized_pb for file in _with_dependencies(file, set())
    )


def _with_dependencies(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if file.name not in seen:
        seen.add(file.name)
        yield file
        for dependency in file.dependencies:
            yield from _with_dependencies(dependency, seen)


def _add_v1(pool: descriptor_pool.DescriptorPool) -> None:
    """Make known what v1 looks like: the package that is installed brings v1alpha only."""
    try:
        pool.FindFileContainingSymbol(_V1)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        alpha, v1 = file.package, file.package.replace("v1alpha", "v1")
        file.name = "grpc/reflection/v1/reflection.proto"
        file.package = v1
        for message in file.message_type:
            for field in filter(lambda field: field.type_name, message.field):
                field.type_name = field.type_name.replace(f".{alpha}.", f".{v1}.")
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(f".{alpha}.", f".{v1}.")
            method.output_type = method.output_type.replace(f".{alpha}.", f".{v1}.")
        pool.Add(file)
