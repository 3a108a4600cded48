"""Decisions against a simple model: every rule that applies must permit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.policy.decision import CommandRequest
from remsvc.server.policy.patterns import Rule
from remsvc.server.policy.policy import Policy
from remsvc.server.policy.programs import Program
from remsvc.server.policy.section import PolicySection, PolicySections

USERS = ["self", "etl", "root"]
PROGRAMS = ["/nowhere/a", "/nowhere/b", "/nowhere/../nowhere/a", "a", "./a"]
VARIABLES = ["TZ", "ETL_X", "PATH", "LD_PRELOAD", "APT_CONFIG"]
DIRECTORIES = ["", "/srv/etl", "/srv/etl/", "/srv/etl/in", "/srv", "/srv/etl/../x", "//srv/etl", "/"]
LISTED = {"/nowhere/a": "/nowhere/a", "/nowhere/../nowhere/a": "/nowhere/a", "/nowhere/b": "/nowhere/b"}

words = st.lists(st.sampled_from("pq"), max_size=2, unique=True)


def optional(values: list[str]) -> st.SearchStrategy[list[str] | None]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, unique=True)


# What a section says, as plain values: the model reads these, the policy is made of them.
said = st.fixed_dictionaries(
    {
        "users": optional([*USERS, "*"]),
        "shells": optional(["none", "sh", "pwsh"]),
        "programs": optional(["/nowhere/a", "/nowhere/b"]),
        "environment": optional(["TZ", "ETL_*", "PATH", "APT_CONFIG", "*"]),
        "directories": optional(["/srv/etl", "/srv/etl/", "/srv/other"]),
        "input": st.none() | st.booleans(),
        "deny": words,
        "allow": words,
    }
)
requests = st.one_of(
    st.builds(
        CommandRequest,
        st.sampled_from(["sh", "pwsh"]),
        st.text("pqr", min_size=1, max_size=3),
        user=st.sampled_from(["", "etl", "root", "self"]),
    ),
    st.builds(
        CommandRequest,
        st.just("none"),
        argv=st.tuples(st.sampled_from(PROGRAMS), st.text("pqr", max_size=2)),
        user=st.sampled_from(["", "etl", "root"]),
        environment=st.dictionaries(st.sampled_from(VARIABLES), st.just("x"), max_size=2),
        directory=st.sampled_from(DIRECTORIES),
        has_input=st.booleans(),
    ),
)


def section(name: str, says: dict[str, Any]) -> PolicySection:
    programs = says["programs"]
    return PolicySection(
        name,
        users=None if says["users"] is None else frozenset(says["users"]),
        shells=None if says["shells"] is None else frozenset(says["shells"]),
        programs=None if programs is None else tuple(map(Program.parse, programs)),
        environment=None if says["environment"] is None else tuple(says["environment"]),
        directories=None if says["directories"] is None else tuple(says["directories"]),
        input=says["input"],
        deny=tuple(Rule(f"deny.{word}", word, name) for word in says["deny"]),
        allow=tuple(Rule(f"allow.{word}", word, name) for word in says["allow"]),
    )


def policy(deny: list[str], allow: list[str], own: Any, group: Any) -> Policy:
    """A policy in which ``me`` has a section, is in a group, both, or neither."""
    sections = PolicySections(
        {"me": section("[identity me]", own)} if own else {},
        {"g": section("[group g]", group)} if group else {},
        {"g": frozenset(("me",))} if group else {},
    )
    return Policy(
        [Rule(word, word, "[denylist]") for word in deny],
        [Rule(word, word, "[allowlist]") for word in allow],
        sections,
    )


def model(deny: list[str], allow: list[str], sections: list[Any], request: CommandRequest) -> bool:
    text = request.text or " ".join(request.argv)
    for patterns in (deny, *(says["deny"] for says in sections)):
        if any(word in text for word in patterns):
            return False
    for patterns in (allow, *(says["allow"] for says in sections)):
        if patterns and not any(word in text for word in patterns):
            return False
    for says in sections:
        users = says["users"]
        if (
            users is not None
            and "*" not in users
            and (request.user == "self" or (request.user or "self") not in users)
        ):
            return False
        shells = says["shells"]
        if shells is None and says["programs"] is not None:
            shells = ["none"]
        if shells is not None and request.shell not in shells:
            return False
        if (
            request.argv
            and says["programs"] is not None
            and LISTED.get(request.argv[0]) not in says["programs"]
        ):
            return False
    return supplied(allow, sections, request)


def supplied(allow: list[str], sections: list[Any], request: CommandRequest) -> bool:
    # The words of the global list are not anchored: they guard, but they do not bound.
    bounded = any(says["allow"] or says["programs"] is not None for says in sections)
    for name in request.environment:
        if not settable(name, bounded, bool(allow), sections):
            return False
    said = {
        key: [says[key] for says in sections if says[key] is not None] for key in ("directories", "input")
    }
    if request.directory and not all(enterable(request.directory, listed) for listed in said["directories"]):
        return False
    if request.has_input and not all(said["input"]):
        return False
    if bounded:
        asked = {"directories": request.directory, "input": request.has_input}
        return all(said[key] for key, value in asked.items() if value)
    return True


def settable(name: str, bounded: bool, guarded: bool, sections: list[Any]) -> bool:
    listed = any(says["programs"] is not None for says in sections)
    barred = name in ("LD_PRELOAD", "PATH")
    reserved = name == "LD_PRELOAD" or (name in ("PATH", "APT_CONFIG") and (bounded or guarded))
    lists = [says["environment"] for says in sections if says["environment"] is not None]
    if listed and barred:
        return False
    if not lists:
        return not bounded and not reserved
    return all(
        name in names or (not reserved and ("*" in names or ("ETL_*" in names and name.startswith("ETL_"))))
        for names in lists
    )


def enterable(directory: str, listed: list[str]) -> bool:
    if directory in ("/srv/etl", "/srv/etl/"):
        return "/srv/etl" in listed or "/srv/etl/" in listed
    return directory == "/srv/etl/in" and "/srv/etl/" in listed


@given(words, words, st.none() | said, st.none() | said, requests)
def test_against_a_simple_model(
    deny: list[str], allow: list[str], own: Any, group: Any, request: CommandRequest
) -> None:
    decision = policy(deny, allow, own, group).decide("me", request)
    assert decision.allowed == model(deny, allow, [says for says in (own, group) if says], request)
    assert decision.rule
    assert bool(decision.message) != decision.allowed


@given(words, words, st.none() | said, said, requests)
def test_a_section_never_permits_what_was_refused_without_it(
    deny: list[str], allow: list[str], own: Any, group: Any, request: CommandRequest
) -> None:
    # But for what is supplied: nobody speaks of it, it is bounded by default; a section may permit it.
    request = CommandRequest(request.shell, request.text, request.argv, request.user)
    if policy(deny, allow, own, group).decide("me", request).allowed:
        assert policy(deny, allow, own, None).decide("me", request).allowed


@given(words, words, said, said, requests)
def test_sections_of_others_do_not_matter(
    deny: list[str], allow: list[str], own: Any, group: Any, request: CommandRequest
) -> None:
    with_others = policy(deny, allow, own, group).decide("somebody else", request)
    assert with_others == policy(deny, allow, None, None).decide("somebody else", request)


@given(words, words, st.none() | said, st.none() | said, requests)
def test_the_explanation_is_the_decision(
    deny: list[str], allow: list[str], own: Any, group: Any, request: CommandRequest
) -> None:
    rules = policy(deny, allow, own, group)
    steps = list(rules.steps("me", request))
    decision = rules.decide("me", request)
    assert decision.allowed == all(step.allowed for step in steps)
    if not decision.allowed:
        refusing = next(step for step in steps if not step.allowed)
        assert (decision.rule, decision.message) == (refusing.rule, refusing.message)


@given(st.dictionaries(st.sampled_from("ab*"), said), st.sampled_from("abc"), requests)
def test_the_section_for_all_others_is_for_all_others(
    identities: dict[str, Any], identity: str, request: CommandRequest
) -> None:
    sections = PolicySections(
        {name: section(f"[identity {name}]", says) for name, says in identities.items()}
    )
    says = identities.get(identity) or identities.get("*")
    assert Policy(sections=sections).decide(identity, request).allowed == model(
        [], [], [says] if says else [], request
    )
