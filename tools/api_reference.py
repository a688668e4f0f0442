"""Makes the API reference (`docs/api/*.md`) from the contracts: comments, types, limits, permissions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from tools.rule_text import rules_text

# Our packages are `llmlab.api.<service>.v1`.
_PREFIX = ".llmlab.api."

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    _F.TYPE_DOUBLE: "double",
    _F.TYPE_FLOAT: "float",
    _F.TYPE_INT64: "int64",
    _F.TYPE_UINT64: "uint64",
    _F.TYPE_INT32: "int32",
    _F.TYPE_UINT32: "uint32",
    _F.TYPE_BOOL: "bool",
    _F.TYPE_STRING: "string",
    _F.TYPE_BYTES: "bytes",
}
# Field numbers inside descriptor messages, of which source locations' paths are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE, _FILE_SYNTAX = 4, 5, 6, 12
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE, _SERVICE_METHOD = 2, 2


@dataclass(frozen=True, slots=True)
class _Extensions:
    """The options that the reference shows."""

    field_rules: Any
    permission: Any
    idempotent: Any
    http: Any


def render_reference(image: bytes) -> dict[str, str]:
    """Renders a serialized FileDescriptorSet (with source info and imports) to Markdown pages, by file name."""
    files, extensions = _parse(image)
    pages: dict[str, list[Any]] = defaultdict(list)
    for file in files:
        if f".{file.package}.".startswith(_PREFIX):
            pages[_page_of(f".{file.package}.")].append(file)
    rendered = {f"{page}.md": _Page(page, members, extensions).render() for page, members in sorted(pages.items())}
    rendered["README.md"] = _render_index(pages)
    return rendered


def _parse(image: bytes) -> tuple[list[Any], _Extensions]:
    """Parses the image with a pool made of the image itself, so that its custom options are readable."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
        pool.Add(file)
    set_class: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet"))
    extensions = _Extensions(
        field_rules=pool.FindExtensionByName("buf.validate.field"),
        permission=pool.FindExtensionByName("llmlab.api.common.v1.permission"),
        idempotent=pool.FindExtensionByName("llmlab.api.common.v1.idempotent"),
        http=pool.FindExtensionByName("google.api.http"),
    )
    return list(set_class.FromString(image).file), extensions


def _page_of(type_name: str) -> str:
    """The page that holds a type of ours: `.llmlab.api.cost.v1.Budget` is on `cost`."""
    return type_name.removeprefix(_PREFIX).partition(".")[0]


def _render_index(pages: dict[str, list[Any]]) -> str:
    lines = [
        "# API reference",
        "",
        "Made from the comments in `protos/` by `make proto`; never edited by hand.",
        "",
        "| page | services | what it holds |",
        "|---|---|---|",
    ]
    for page, files in sorted(pages.items()):
        services = ", ".join(f"`{service.name}`" for file in files for service in file.service) or "-"
        subjects = " ".join(_Comments(file).at((_FILE_SYNTAX,)) for file in files)
        lines.append(f"| [{page}]({page}.md) | {services} | {_cell(subjects)} |")
    return "\n".join(lines) + "\n"


class _Comments:
    """The comments of one file, by the path of what they stand before."""

    def __init__(self, file: Any) -> None:
        self._text = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}

    def at(self, path: tuple[int, ...]) -> str:
        lines = self._text.get(path, "").splitlines()
        return "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip()


class _Page:
    """One package's page."""

    def __init__(self, name: str, files: list[Any], extensions: _Extensions) -> None:
        self._name = name
        self._files = files
        self._extensions = extensions
        self._lines: list[str] = []

    def render(self) -> str:
        self._lines = [f"# {self._files[0].package}", "", "Made from the protos by `make proto`; never edited by hand."]
        for file in self._files:
            comments = _Comments(file)
            self._paragraphs(f"`{file.name}`: {comments.at((_FILE_SYNTAX,))}")
            for index, service in enumerate(file.service):
                self._service(service, (_FILE_SERVICE, index), comments)
        for file in self._files:
            comments = _Comments(file)
            for index, message in enumerate(file.message_type):
                self._message(message, message.name, f".{file.package}", (_FILE_MESSAGE, index), comments)
            for index, enum in enumerate(file.enum_type):
                self._enum(enum, enum.name, (_FILE_ENUM, index), comments)
        return "\n".join(self._lines).strip() + "\n"

    def _paragraphs(self, *paragraphs: str) -> None:
        for paragraph in paragraphs:
            if paragraph:
                self._lines += ["", paragraph]

    def _service(self, service: Any, path: tuple[int, ...], comments: _Comments) -> None:
        self._paragraphs(f"## {service.name}", comments.at(path))
        for index, method in enumerate(service.method):
            request = ("stream of " if method.client_streaming else "") + self._type_link(method.input_type)
            response = ("stream of " if method.server_streaming else "") + self._type_link(method.output_type)
            self._paragraphs(
                f"### {service.name}.{method.name}",
                comments.at((*path, _SERVICE_METHOD, index)),
                f"{request} → {response}",
                " · ".join(self._method_facts(method)),
            )

    def _method_facts(self, method: Any) -> list[str]:
        permission = self._extensions.permission
        number = method.options.Extensions[permission]
        facts = [f"permission `{permission.enum_type.values_by_number[number].name}`"]
        idempotent = method.options.Extensions[self._extensions.idempotent]
        facts.append("idempotent: clients may retry it" if idempotent else "not retried by clients")
        if method.options.HasExtension(self._extensions.http):
            facts.append(f"HTTP `{_http_text(method.options.Extensions[self._extensions.http])}`")
        return facts

    def _message(self, message: Any, name: str, scope: str, path: tuple[int, ...], comments: _Comments) -> None:
        """`scope` is the package, or the name of the message around this one."""
        self._paragraphs(f"## {name}", comments.at(path))
        full_name = f"{scope}.{message.name}"
        maps = {f"{full_name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
        if message.field:
            self._lines += ["", "| field | type | limits | meaning |", "|---|---|---|---|"]
        for index, field in enumerate(message.field):
            meaning = comments.at((*path, _MESSAGE_FIELD, index))
            cells = (f"`{field.name}`", self._field_type(message, field, maps), self._limits(field), _cell(meaning))
            self._lines.append("| " + " | ".join(cells) + " |")
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                nested_path = (*path, _MESSAGE_NESTED, index)
                self._message(nested, f"{name}.{nested.name}", full_name, nested_path, comments)
        for index, enum in enumerate(message.enum_type):
            self._enum(enum, f"{name}.{enum.name}", (*path, _MESSAGE_ENUM, index), comments)

    def _field_type(self, message: Any, field: Any, maps: dict[str, Any]) -> str:
        entry = maps.get(field.type_name)
        if entry is not None:
            key, value = entry.field
            return f"map of {self._value_type(key)} to {self._value_type(value)}"
        text = self._value_type(field)
        if field.label == _F.LABEL_REPEATED:
            return f"repeated {text}"
        if field.proto3_optional:
            return f"optional {text}"
        if field.HasField("oneof_index"):
            return f"{text}, one of `{message.oneof_decl[field.oneof_index].name}`"
        return text

    def _value_type(self, field: Any) -> str:
        return _SCALARS[field.type] if field.type in _SCALARS else self._type_link(field.type_name)

    def _type_link(self, type_name: str) -> str:
        if not type_name.startswith(_PREFIX):
            return f"`{type_name.removeprefix('.')}`"
        page = _page_of(type_name)
        name = type_name.removeprefix(f"{_PREFIX}{page}.v1.")
        file = "" if page == self._name else f"{page}.md"
        return f"[{name}]({file}#{name.lower().replace('.', '')})"

    def _limits(self, field: Any) -> str:
        if not field.options.HasExtension(self._extensions.field_rules):
            return ""
        rules: Message = field.options.Extensions[self._extensions.field_rules]
        return _cell(rules_text(rules))

    def _enum(self, enum: Any, name: str, path: tuple[int, ...], comments: _Comments) -> None:
        self._paragraphs(f"## {name}", comments.at(path))
        self._lines += ["", "| value | number | meaning |", "|---|---|---|"]
        for index, value in enumerate(enum.value):
            meaning = _cell(comments.at((*path, _ENUM_VALUE, index)))
            self._lines.append(f"| `{value.name}` | {value.number} | {meaning} |")


def _http_text(rule: Any) -> str:
    verb = rule.WhichOneof("pattern")
    return f"{verb.upper()} {getattr(rule, verb)}"


def _cell(text: str) -> str:
    """Text that fits into one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
