"""Request bodies, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """JSON as RFC 8259 has it: no NaN, no lone surrogates, bounded nesting.

    Raises:
        ParseError: says where the text stops being JSON.
    """

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            return msgspec.json.decode(stream.read())
        except msgspec.DecodeError as error:
            raise ParseError(f"The body is not valid JSON: {error}. Send one JSON object.") from None
        except UnicodeDecodeError:
            raise ParseError("The body is not valid JSON: it is not UTF-8. Send one JSON object in UTF-8.") from None
        except RecursionError:
            raise ParseError("The body is nested too deeply. Send one flat JSON object.") from None
