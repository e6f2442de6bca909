"""From the words of the command line to a Wish, with contradictions explained before QEMU is started."""

from __future__ import annotations

from pathlib import Path

from qmp_client.errors import UsageError, nearest
from qmp_client.negotiation.choice_file import number, read
from qmp_client.negotiation.choose import POLICIES
from qmp_client.negotiation.contradictions import refused
from qmp_client.negotiation.wish import Wish


def understand(choose: str, attributes: str | None, xfam: str | None) -> Wish:
    """Read ``--choose``, ``--attributes`` and ``--xfam``. Raises UsageError for what can only be refused."""
    given_attributes, given_xfam = _mask("--attributes", attributes), _mask("--xfam", xfam)
    entries = None
    if choose not in POLICIES:
        path = Path(choose)
        if not path.exists():
            raise UsageError(f"--choose {choose}: neither a policy nor a file", hint=nearest(choose, list(POLICIES)))
        entries = read(path)
        given_attributes = entries.attributes_value if given_attributes is None else given_attributes
        given_xfam = entries.xfam_value if given_xfam is None else given_xfam
    leaves = {} if entries is None else entries.leaves()
    if wrong := refused(leaves, given_attributes, given_xfam):
        raise UsageError(
            f"no TD can be like that: {'; '.join(wrong)}",
            hint="nothing was started; change --choose, --xfam or --attributes",
        )
    return Wish(
        policy=choose if entries is None else "",
        entries=None if entries is None else leaves,
        source=choose,
        attributes=given_attributes,
        xfam=given_xfam,
    )


def _mask(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else number(text, 64)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint="write it as 0x602e7") from error
