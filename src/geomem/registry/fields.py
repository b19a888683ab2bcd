"""Fields whose model a registry knows: the settings of methods, memories, metrics, sources.

What can be registered is open, so such a field is no union of known classes: the value is checked
with the model of the entry that it names, when it is read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from geomem.registry.core import Registry
from geomem.registry.strict import Strict

E = TypeVar("E", bound=Any)
ModelOf = Callable[[E], type[Strict]]


def plain_dump(value: Any) -> Any:
    """Return a model, or a mapping of models by name, as plain JSON values."""
    if isinstance(value, Mapping):
        return {name: plain_dump(settings) for name, settings in value.items()}
    return value.recorded()


class _Registered:
    """Marks a field of an `Annotated` type; pydantic asks it how to check and to describe it."""

    def __init__(self, registry: Registry[E], model_of: ModelOf[E]) -> None:
        self.registry, self.model_of = registry, model_of

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check,
            serialization=core_schema.plain_serializer_function_ser_schema(plain_dump),
        )

    def check(self, value: Any) -> Any:
        raise NotImplementedError

    def unknown(self) -> str:
        """Return what to tell of a name that is not registered."""
        return f"the {self.registry.kind} is none of {self.registry.names()}"

    def definitions(self) -> dict[str, Any]:
        """Return the JSON schema of every entry's model by the entry's name."""
        return {
            entry.name: self.model_of(entry).model_json_schema(ref_template="#/$defs/{model}")
            for entry in self.registry
        }


class ByKey(_Registered):
    """One model, whose entry the value names under a key: `source: rooms`."""

    def __init__(self, registry: Registry[E], model_of: ModelOf[E], key: str) -> None:
        super().__init__(registry, model_of)
        self.key = key

    def check(self, value: Any) -> Strict:
        if isinstance(value, Strict):
            return value
        if not isinstance(value, dict) or self.key not in value:
            raise PydanticCustomError("missing", "Field required: `{key}`", {"key": self.key})
        name = value[self.key]
        if name not in self.registry:
            fault = _fault((self.key,), name, self.unknown())
            raise ValidationError.from_exception_data("settings", [fault])
        return self.model_of(self.registry[name]).model_validate(value)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        models = {name: _inlined(model) for name, model in self.definitions().items()}
        for name, model in models.items():
            model["properties"][self.key] = {"const": name}
        return {"oneOf": list(models.values())}


class ByName(_Registered):
    """A mapping of entries' names to their settings; an entry that is not named has its defaults.

    An entry all of whose settings have defaults need not be named.
    """

    def check(self, value: Any) -> dict[str, Strict]:
        if not isinstance(value, Mapping):
            raise PydanticCustomError("dict_type", "Input should be a mapping")
        faults: list[InitErrorDetails] = []
        made: dict[str, Strict] = {}
        for name, given in value.items():
            if name not in self.registry:
                faults.append(_fault((name,), name, self.unknown()))
                continue
            try:
                model = self.model_of(self.registry[name])
                made[name] = given if isinstance(given, Strict) else model.model_validate(given)
            except ValidationError as error:
                faults += [
                    _fault((name, *fault["loc"]), fault["input"], fault["msg"])
                    for fault in error.errors()
                ]
        if faults:
            raise ValidationError.from_exception_data("settings", faults)
        return made

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: _inlined(model) for name, model in self.definitions().items()},
        }


class Named:
    """A string that is one of some registered names."""

    def __init__(self, kind: str, names: Callable[[], Sequence[str]]) -> None:
        self.kind, self.names = kind, names

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: str) -> str:
        """Return the name; a fault where nothing bears it."""
        if value not in self.names():
            known = {"kind": self.kind, "names": str(sorted(self.names()))}
            raise PydanticCustomError("registered", "the {kind} is none of {names}", known)
        return value

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": sorted(self.names())}


def _fault(place: tuple[int | str, ...], value: Any, message: str) -> InitErrorDetails:
    told = PydanticCustomError("registered", "{told}", {"told": message})
    return InitErrorDetails(type=told, loc=place, input=value)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a model's JSON schema with its definitions in the places that refer to them."""
    definitions = schema.get("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolve(definitions[part["$ref"].rsplit("/", 1)[1]])
            return {key: resolve(value) for key, value in part.items() if key != "$defs"}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    inlined: dict[str, Any] = resolve(schema)
    return inlined
