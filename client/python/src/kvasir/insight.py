"""What a session may know of its tenant. Fields are those of proto/kvasir/v1/admin.proto."""
import base64
import typing


class TenantStats(typing.NamedTuple):
    """Counts since the daemon started, unless they say of what is there now."""

    tenant: str
    held_bytes: int  # allocated block groups, now
    charged_bytes: int  # extents owned, what the limit applies to, now
    limit_bytes: int
    reserved_bytes: int
    wanted_back_bytes: int  # of what is borrowed, that its owners want, now
    sessions: int
    sequences: int
    rows_seen: int  # over the tenant's open sequences
    rows_kept: int
    snapshots: int
    prefixes: int
    prefix_bytes: int
    prefix_lookups: int
    prefix_hits: int
    prefix_rows: int  # of the prompts that were asked with
    prefix_rows_hit: int  # of those, rows that were there
    all: typing.Mapping[str, typing.Any]  # every field by name, 64-bit numbers as text


class Parameter(typing.NamedTuple):
    name: str
    type: str  # "integer", "real", "list", "boolean", "choice"
    default: str
    bounds: str
    description: str


class Policy(typing.NamedTuple):
    name: str
    summary: str
    source: str  # paper
    needs: str  # what the engine must provide
    shareable: bool  # may its result be shared under a prefix hash
    parameters: typing.Tuple[Parameter, ...]


class InspectedRow(typing.NamedTuple):
    row: int
    token: typing.Optional[int]  # None: the daemon has forgotten it
    kept: bool  # by at least one kv head
    kept_heads: int
    text: bytes


Json = typing.Mapping[str, typing.Any]


def tenants_of(answer: Json) -> typing.List[TenantStats]:
    """Of a GetStatsResponse."""
    tenants = []
    for one in answer["tenants"]:
        host = one["host"]
        numbers = {name: int(host[name] if name in host else one[name])
                   for name in TenantStats._fields[1:-1]}
        tenants.append(TenantStats(tenant=one["tenant"], all=one, **numbers))
    return tenants


def policies_of(answer: Json) -> typing.List[Policy]:
    """Of a ListPoliciesResponse."""
    return [Policy(one["name"], one["summary"], one["source"], one["needs"], one["shareable"],
                   tuple(Parameter(p["name"], p["type"], p["default_value"], p["bounds"],
                                   p["description"]) for p in one["parameters"]))
            for one in answer["policies"]]


def rows_of(answer: Json) -> typing.List[InspectedRow]:
    """Of an InspectSequenceResponse."""
    return [InspectedRow(int(one["row"]), one["token"] if one["token_known"] else None,
                         one["kept"], one["kept_heads"], base64.b64decode(one["text"]))
            for one in answer["rows"]]
