"""Read YAML of others: plain values, and no more of them than settings can have."""

from typing import Any

import yaml

from nnunet_fm.internal.errors import InputError

MOST_VALUES = 100_000  # after every alias (*name) has been replaced by what it stands for


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML into plain values.

    Args:
        text: the text.
        where: names its file or option, for the error's message.

    Raises:
        InputError: no YAML, nested too deeply, an alias inside what it stands for, or aliases that
            stand for more values than settings have.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if _count(root, {}) > MOST_VALUES:
            raise InputError(f"{where} stands for more than {MOST_VALUES:,} values; allowed: fewer")
        return loader.construct_document(root)
    except RecursionError:
        raise InputError(f"{where} is not YAML that can be read: nested too deeply") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {error}") from None
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:  # e.g. no such date
        raise InputError(f"{where} is not YAML: {error}") from None


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Count the values below a node with every alias replaced; `counts` has those counted before.

    Raises:
        yaml.YAMLError: the node contains itself.
    """
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    else:
        return 1
    if id(node) not in counts:
        counts[id(node)] = -1  # is being counted
        counts[id(node)] = 1 + sum(_count(child, counts) for child in children)
    elif counts[id(node)] < 0:
        line = node.start_mark.line + 1
        raise yaml.YAMLError(f"line {line} contains itself (an alias)")
    return counts[id(node)]
