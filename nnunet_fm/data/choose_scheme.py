"""Find the label scheme of a folder, by the names of its cases and all labels of their files."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nnunet_fm.data.label_schemes import SCHEMES, BratsScheme, Region, fitting_schemes, get_scheme
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted, some

TYPE = "type --scheme NAME"


@dataclass(frozen=True)
class SchemeChoice:
    """How the labels of a folder are read.

    Attributes:
        of_case: scheme of each labelled case. Where there are several, nnU-Net's labels are the
            same.
        target: scheme of the folder as a whole.
        text: what was chosen and why, one line.
    """

    of_case: dict[str, BratsScheme]
    target: BratsScheme
    text: str

    @property
    def scored_regions(self) -> tuple[Region, ...]:
        """The regions for files with the labels of any of the schemes, or nnU-Net's."""
        schemes = [*{id(s): s for s in self.of_case.values()}.values()] or [self.target]
        labels: dict[str, set[int]] = {}
        for region in (region for scheme in schemes for region in scheme.scored_regions):
            labels.setdefault(region.name, set()).update(region.labels)
        return tuple(Region(name, tuple(sorted(values))) for name, values in labels.items())


@dataclass
class _Group:
    """Cases whose names fit the same schemes, and all labels in their files."""

    candidates: list[BratsScheme]
    cases: list[str]
    labels: set[int]

    @property
    def found(self) -> str:
        """The labels in words."""
        return ", ".join(map(str, sorted(self.labels))) or "none"


def choose_scheme(
    labels: Mapping[str, Collection[int]], name: str | None = None, or_written: bool = False
) -> SchemeChoice:
    """Find the scheme of a folder, or check the given one.

    Args:
        labels: labels in the file of each case, with or without 0; an empty collection for a case
            without a file.
        name: name of the scheme; if None, it is found by the names of the cases.
        or_written: the labels may also be those that nnU-Net gets (`BratsScheme.written`).

    Raises:
        ValueError: unknown name; labels that the scheme does not have; case names that no challenge
            uses, or labels that mean different things in the challenges that use them; cases of
            challenges that have no labels in common.
    """
    foreground = {case: set(values) - {0} for case, values in labels.items()}
    if name is not None:
        return _given(get_scheme(name), foreground, or_written)
    labelled = {case: values for case, values in foreground.items() if values}
    groups = _groups(labelled or foreground)
    chosen = [(group, _scheme_of(group, or_written)) for group in groups]
    first = chosen[0][1]
    for group, scheme in chosen:
        if scheme.written_regions != first.written_regions:
            raise InputError(
                f"{some(groups[0].cases, 2)} are labelled as {first.name} ({first.meaning}), "
                f"{some(group.cases, 2)} as {scheme.name} ({scheme.meaning}), which do not go "
                "together; give a folder of one challenge"
            )
    parts = [
        f"{scheme.name} ({scheme.title}, {scheme.years}: {scheme.meaning}), by the names of "
        f"{counted(len(group.cases), 'case')} and their labels ({group.found})"
        for group, scheme in chosen
    ]
    of_case = {case: scheme for group, scheme in chosen for case in group.cases}
    return SchemeChoice(of_case, chosen[-1][1], f"label scheme {'; '.join(parts)}")


def _given(scheme: BratsScheme, labels: Mapping[str, set[int]], or_written: bool) -> SchemeChoice:
    wrong = [case for case, values in labels.items() if not scheme.covers(values, or_written)]
    if wrong:
        found = set().union(*(labels[case] for case in wrong))
        raise InputError(_misfit(scheme.name, scheme.meaning, wrong, found))
    text = f"label scheme {scheme.name} ({scheme.title}, {scheme.years}: {scheme.meaning}), given"
    return SchemeChoice(dict.fromkeys(labels, scheme), scheme, text)


def _misfit(name: str, meaning: str, cases: list[str], labels: Iterable[int]) -> str:
    found = sorted(labels)
    fitting = fitting_schemes(found)
    remedy = f"these labels fit {fitting}; {TYPE} if it is one of them" if fitting else ""
    return (
        f"{name} has the labels {meaning}, but {some(cases)} have "
        f"{', '.join(map(str, found))}; {remedy or 'no scheme has these labels'}"
    )


def _groups(labels: Mapping[str, set[int]]) -> list[_Group]:
    """Group cases that can be of one challenge; the last group has names that no challenge uses."""
    groups: list[_Group] = []
    nameless = _Group([], [], set())
    for case, values in labels.items():
        candidates = [scheme for scheme in SCHEMES.values() if scheme.describes(case)]
        group = nameless
        if candidates:
            common = [g for g in groups if any(s in g.candidates for s in candidates)]
            group = common[0] if common else _Group(candidates, [], set())
            group.candidates = [s for s in group.candidates if s in candidates]
            if not common:
                groups.append(group)
        group.cases.append(case)
        group.labels |= values
    return [*groups, nameless] if nameless.cases else groups


def _scheme_of(group: _Group, or_written: bool) -> BratsScheme:
    """Return the smallest scheme that has the labels, if all that have them agree on them."""
    if not group.candidates:
        raise InputError(_nameless(group))
    fitting = [s for s in group.candidates if s.covers(group.labels, or_written)]
    if not fitting:
        names = " or ".join(scheme.name for scheme in group.candidates)
        meaning = "; ".join(scheme.meaning for scheme in group.candidates)
        raise InputError(_misfit(names, meaning, group.cases, group.labels))
    smallest = min(fitting, key=lambda scheme: len(scheme.labels))
    meanings = {tuple(map(scheme.memberships, sorted(group.labels))) for scheme in fitting}
    if len(meanings) > 1:
        raise InputError(
            f"{some(group.cases)} have the labels {group.found}, which mean different things in "
            f"{' and '.join(f'{s.name} ({s.years}: {s.meaning})' for s in fitting)}; {TYPE}"
        )
    if len(group.candidates) > 1:
        check_cavity(dict.fromkeys(group.cases, group.labels), smallest)
    return smallest


def check_cavity(labels: Mapping[str, Collection[int]], scheme: BratsScheme) -> None:
    """Refuse a resection cavity that may be the enhancing tumour of an older scheme.

    Args:
        labels: labels in the file of each case.
        scheme: the scheme that they are read by.

    Raises:
        ValueError: cavities, but no enhancing tumour.
    """
    if not scheme.mistaken:
        return
    numbers = {meaning: label for label, meaning in scheme.labels.items()}
    found = {label for values in labels.values() for label in values}
    if numbers["RC"] in found and numbers["ET"] not in found:
        older = SCHEMES[scheme.mistaken]
        raise InputError(
            f"{some(list(labels))} have label {numbers['RC']} but not {numbers['ET']}: either "
            f"{scheme.name} ({scheme.meaning}) without enhancing tumour, or the labels of "
            f"{older.name} ({older.meaning}) under new names; {TYPE}"
        )


def _nameless(group: _Group) -> str:
    fitting = fitting_schemes(group.labels)
    if not group.labels:
        return f"{some(group.cases)} are not named as in any challenge, and have no labels; {TYPE}"
    if not fitting:
        return f"{some(group.cases)} have the labels {group.found}, which no scheme has"
    return (
        f"{some(group.cases)} are not named as in any challenge; their labels {group.found} fit "
        f"{fitting}; {TYPE}"
    )
