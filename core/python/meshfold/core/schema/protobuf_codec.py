"""Protobuf messages: deterministic wire form, and a descriptor from which another process can rebuild the class.

Invariants: the identity covers numbers, names, types and labels of all fields that can be reached, and no options;
bytes with fields that the descriptor does not have are refused, since equal identities mean equal fields.
"""

from __future__ import annotations

from typing import Any, Final, cast

from meshfold.core.errors import SchemaMismatch
from meshfold.core.schema.codec import UNFIT, Rows, finite, missing, said

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message
except ImportError:
    raise missing("google.protobuf", "a protobuf schema") from None

__all__ = ("ProtobufCodec", "rebuild")

#: Message types one schema may reach; a generated API has tens.
TYPES_MAX: Final = 1024


class ProtobufCodec:
    """Values of one generated message class."""

    def __init__(self, of: Any) -> None:
        if not (isinstance(of, type) and issubclass(of, Message) and of is not Message):
            raise SchemaMismatch(
                f"{of!r} is no protobuf message class",
                fix="pass the generated class",
                expected="a message class",
                found=repr(of),
            )
        self._of: Any = of
        self.name: str = of.DESCRIPTOR.name
        self.shape: dict[str, Any] = _shape(cast("Descriptor", of.DESCRIPTOR))

    def encode(self, value: Any) -> bytes:
        """Return the wire form; map entries are sorted, so that equal messages give equal bytes."""
        if not isinstance(value, self._of):
            raise TypeError(f"expected {self.name}, got {type(value).__name__}")
        data: bytes = value.SerializeToString(deterministic=True)
        self.decode(data)
        return data

    def decode(self, data: bytes) -> Any:
        """Return the message; unknown fields, missing required ones and deep nesting are refused."""
        message = self._of.FromString(data)
        if not message.IsInitialized():
            raise ValueError(f"required fields are missing: {', '.join(message.FindInitializationErrors())}")
        known = message.ByteSize()
        message.DiscardUnknownFields()
        if message.ByteSize() != known:
            raise ValueError(f"fields that {self.name} does not have")
        return message

    def rows(self, values: Any) -> Rows | None:
        """Messages are taken one by one."""
        return None

    def plain(self, value: Any) -> Any:
        """Return the message as protobuf's own JSON mapping, with its field names; as text where that has none."""
        try:
            return finite(json_format.MessageToDict(value, preserving_proto_field_name=True))
        except (json_format.Error, ValueError, TypeError, RecursionError):
            return str(value)


def _shape(root: Descriptor) -> dict[str, Any]:
    """Message and enum types reachable from `root`, as plain JSON in the order of their names."""
    types: dict[str, Any] = {}
    open_: list[Descriptor | EnumDescriptor] = [root]
    while open_:
        found = open_.pop()
        if found.full_name in types:
            continue
        if len(types) >= TYPES_MAX:
            raise SchemaMismatch(
                f"{root.full_name} reaches more than {TYPES_MAX} types", expected="fewer", found="more"
            )
        if isinstance(found, EnumDescriptor):
            types[found.full_name] = {"enum": [[value.name, value.number] for value in found.values]}
            continue
        rows: list[dict[str, Any]] = []
        for field in sorted(found.fields, key=lambda field: field.number):
            row: dict[str, Any] = {"name": field.name, "number": field.number, "type": field.type}
            for key, holds in (
                ("repeated", field.is_repeated),
                ("required", field.is_required),
                ("packed", field.is_packed),
            ):
                if holds:
                    row[key] = True
            target = field.message_type or field.enum_type
            if target is not None:
                row["of"] = target.full_name
                open_.append(target)
            if field.has_presence and field.message_type is None and field.containing_oneof is None:
                row["presence"] = True
            if field.containing_oneof is not None:
                row["oneof"] = field.containing_oneof.name
            rows.append(row)
        types[found.full_name] = {"fields": rows}
        if found.GetOptions().map_entry:
            types[found.full_name]["map"] = True
    return {"message": root.full_name, "types": dict(sorted(types.items()))}


def rebuild(shape: dict[str, Any]) -> ProtobufCodec:
    """Make the codec of a shape whose class is not here.

    :raises SchemaMismatch: if the shape describes no message
    """
    try:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file(shape))
        found = pool.FindMessageTypeByName(shape["message"])
        codec = ProtobufCodec(message_factory.GetMessageClass(found))
    except UNFIT as error:
        raise SchemaMismatch(
            f"not the shape of a protobuf message: {said(error)}",
            expected="message, types",
            found=str(shape)[:80],
        ) from None
    if codec.shape != shape:
        raise SchemaMismatch(
            f"the shape of {codec.name} cannot be rebuilt here",
            fix="use the generated class",
            expected=str(shape)[:80],
            found=str(codec.shape)[:80],
        )
    return codec


def _file(shape: dict[str, Any]) -> Any:
    """All types of a shape as one file. Whether a dot parts packages or messages does not show in a full name: every
    part becomes a message, empty where the shape does not have it."""
    file = descriptor_pb2.FileDescriptorProto(name="shape.proto", syntax=_syntax(shape))
    made: dict[str, Any] = {}

    def message(full: str) -> Any:
        if full not in made:
            parent, _, name = full.rpartition(".")
            made[full] = (
                message(parent).nested_type.add(name=name) if parent else file.message_type.add(name=name)
            )
        return made[full]

    for full, node in sorted(shape["types"].items()):
        if "enum" in node:
            parent, _, name = full.rpartition(".")
            enum = (message(parent) if parent else file).enum_type.add(name=name)
            for label, number in node["enum"]:
                enum.value.add(name=label, number=number)
            if len({number for _, number in node["enum"]}) < len(node["enum"]):
                enum.options.allow_alias = True
            continue
        target = message(full)
        if node.get("map"):
            target.options.map_entry = True
        for row in node["fields"]:
            _add_field(target, row, file.syntax == "proto3")
    return file


def _add_field(message: Any, row: dict[str, Any], proto3: bool) -> None:
    label = (
        "LABEL_REPEATED"
        if row.get("repeated")
        else "LABEL_REQUIRED"
        if row.get("required")
        else "LABEL_OPTIONAL"
    )
    field = message.field.add(name=row["name"], number=row["number"], type=row["type"], label=label)
    if "of" in row:
        field.type_name = "." + row["of"]
    if row.get("repeated") and row["type"] not in (
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_MESSAGE,
        FieldDescriptor.TYPE_GROUP,
    ):
        field.options.packed = bool(row.get("packed"))
    if "oneof" in row:
        names = [oneof.name for oneof in message.oneof_decl]
        if row["oneof"] not in names:
            message.oneof_decl.add(name=row["oneof"])
            names.append(row["oneof"])
        field.oneof_index = names.index(row["oneof"])
        field.proto3_optional = proto3 and row["oneof"] == f"_{row['name']}"


def _syntax(shape: dict[str, Any]) -> str:
    """proto2 where scalars have presence of their own or are required; nothing else tells them apart on the wire."""
    rows = [row for node in shape["types"].values() for row in node.get("fields", ())]
    return "proto2" if any(row.get("presence") or row.get("required") for row in rows) else "proto3"
