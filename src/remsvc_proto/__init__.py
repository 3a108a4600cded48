"""The generated protocol modules: messages (``*_pb2``) and service stubs (``*_pb2_grpc``)."""
