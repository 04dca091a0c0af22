"""Agencies in the words of the CSS API."""

from __future__ import annotations

from shardlift.api.auth import Caller
from shardlift.api.errors import BAD_AGENCY, NOT_PERMITTED, ApiError, sentence
from shardlift.service.agencies import Action, AgencyDeniedError, AgencyNameError


async def permit(caller: Caller, agency: str, action: Action) -> None:
    """Raises 400 CSS.5130 or 403 CSS.0010 unless `action` may be done in the name of this agency of the caller's."""
    try:
        await caller.service.agencies.permit(caller.project_id, agency, action)
    except AgencyNameError as error:
        raise ApiError(BAD_AGENCY, f"agency: {sentence(error.message)} {_capital(error.remedy)}.") from None
    except AgencyDeniedError as error:
        raise ApiError(NOT_PERMITTED, f"{sentence(_capital(error.message))} {_capital(error.remedy)}.") from None


def _capital(text: str | None) -> str:
    return (text or "")[:1].upper() + (text or "")[1:]
