"""Every counter-example of the merge, by name, on the real store in every order of arrival (design/store.md 6)."""

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from peers.model.entries import Dep, Leaf
from peers.testing.arrivals import all_orders, orders
from peers.testing.scripted import Script
from tests.store.test_merge_oracle import check

K = (b"k",)


def t23_owner_and_later_writer() -> Script:
    s = Script("t23")
    key = s.key("c", 1)
    created = s.write("c", s.insert("idea", key, {"title": "0"}))
    second = s.write("c", s.update("idea", key, {"title": "owner"}))
    s.write("d", s.update("idea", key, {"title": "saw it"}), saw=[second])
    s.write("b", s.update("idea", key, {"title": "later, did not"}), saw=[created])
    return s


def ce1_void_deps_keep_the_causal_past() -> Script:
    s = Script("ce1")
    base = s.write("a", s.insert("setting", K, {"v": 1}))
    void = s.write("b", s.update("setting", K, {"v": 2}), saw=[base])
    s.write("c", s.update("setting", K, {"v": 3}), saw=[base, void])
    s.write("d", s.update("setting", K, {"v": 4}), saw=[void])
    s.cut(s.log("b"), 0)
    return s


def ce2_more() -> Script:
    s = Script("ce2")
    first = s.write("a", s.insert("setting", K, {"v": 1}), hlc=s.hlc(1), more=True)
    s.write("a", s.update("setting", K, {"v": 2}), hlc=s.hlc(1) + 1)
    s.write("b", s.insert("setting", K, {"v": 3}), more=True)
    assert first.oracle.more
    return s


def ce3_insert_and_delete_in_one_entry() -> Script:
    s = Script("ce3")
    s.write("a", s.insert("setting", K, {"v": 1}), s.delete("setting", K))
    s.write("b", s.delete("setting", K), s.insert("setting", K, {"v": 1}))
    key = s.key("c", 3)
    both = s.write("c", s.insert("trade", key, {"qty": 3}), s.delete("trade", key))
    s.write("d", s.update("trade", key, {"qty": 4}), s.restore("trade", key), saw=[both])
    return s


def ce4_equal_values() -> Script:
    s = Script("ce4")
    base = s.write("a", s.insert("setting", K, {"v": 0}))
    s.write("a", s.update("setting", K, {"v": 1}))
    same = s.write("b", s.update("setting", K, {"v": 1}), saw=[base])
    s.write("c", s.update("setting", K, {"v": 2}), saw=[base, same])
    return s


def ce5_restore_without_insert() -> Script:
    s = Script("ce5")
    key = s.key("c", 1)
    insert = s.write("c", s.insert("trade", key, {"symbol": "x", "qty": 5, "note": 1}))
    edit = s.write("d", s.update("trade", key, {"symbol": "y"}), saw=[insert])
    s.write("a", s.restore("trade", key), saw=[insert, edit])
    tag = ("k", 7)
    s.write("c", s.insert("tagof", tag, {"w": 1, "body": b"x"}))
    s.write("a", s.restore("tagof", tag))
    s.cut(s.log("c"), 0)
    return s


def ce6_deps_not_closed_after_a_raised_cut_off() -> Script:
    s = Script("ce6")
    base = s.write("a", s.insert("setting", K, {"v": 0}))
    v = s.write("b", s.update("setting", K, {"v": "V"}), saw=[base])
    e2 = s.write("c", s.update("setting", K, {"v": "E2"}), saw=[base, v])
    s.write("a", s.update("setting", K, {"v": "F"}), saw=[e2])  # v was void where this was written
    s.write("d", s.update("setting", K, {"v": "d4"}), saw=[base])
    s.cut(s.log("b"), 0)
    s.cut(s.log("b"), 1)
    return s


def ce7_epoch_justified_by_a_void_entry() -> Script:
    s = Script("ce7")
    key = s.key("a", 1)
    created = s.write("a", s.insert("idea", key, {"title": "0"}))
    again = s.write("b", s.update("idea", key, {"title": "owner's other device"}), saw=[created])
    s.write("c", s.update("idea", key, {"title": "guest"}), saw=[created, again])
    s.write("d", s.update("idea", key, {"title": "late"}), saw=[created])
    s.cut(s.log("b"), 0)
    return s


def ce9_fork_twins_share_ids() -> Script:
    s = Script("ce9")
    key = s.key("c", 1)
    one = s.write("c", s.insert("trade", key, {"qty": 1}))
    twin = s.write("c", s.insert("trade", key, {"qty": 2}), first=True, hlc=one.header.hlc)
    s.write("d", s.update("trade", key, {"symbol": "saw one"}), saw=[one])
    s.write("a", s.update("trade", key, {"symbol": "saw the twin"}), saw=[twin])
    return s


def a_dep_names_a_branch() -> Script:
    s = Script("branch")
    base = s.write("c", s.insert("setting", K, {"v": 0}))
    s.write("c", s.update("setting", K, {"v": "left"}))
    right = s.write("c", s.update("setting", K, {"v": "right"}), after=base)
    s.write("d", s.update("setting", K, {"v": "seer"}), saw=[right])
    return s


def a_lie_about_the_future() -> Script:
    s = Script("lie")
    s.write("a", s.insert("setting", K, {"v": 0}))
    future = Dep(*s.log("a"), 1000, bytes(32))
    liar = s.write("d", s.update("setting", K, {"v": "lie"}), claims=[future])
    s.write("a", s.update("setting", K, {"v": "truth"}), saw=[liar])
    s.write("c", s.insert("setting", K, {"v": "early"}), hlc=s.hlc(0), claims=[future])
    return s


def cut_off_raised_after_owned_dependents() -> Script:
    s = Script("owned raise")
    key = s.key("a", 1)
    created = s.write("a", s.insert("idea", key, {"title": "0"}))
    again = s.write("b", s.update("idea", key, {"title": "owner"}), saw=[created])
    s.write("c", s.update("idea", key, {"title": "guest"}), saw=[created, again])
    s.write("d", s.update("idea", key, {"title": "late"}), saw=[created])
    s.cut(s.log("b"), 0)
    s.cut(s.log("b"), None)
    return s


def concurrent_delete_edit_restore() -> Script:
    s = Script("delete edit restore")
    base = s.write("a", s.insert("setting", K, {"v": 0}))
    gone = s.write("b", s.delete("setting", K), saw=[base])
    s.write("c", s.update("setting", K, {"v": 1}), saw=[base])
    s.write("d", s.restore("setting", K), saw=[base, gone])
    s.write("a", s.delete("setting", K))
    return s


def one_cell_from_five_logs() -> Script:
    s = Script("five logs")
    for device, incarnation in (("a", b"11111111"), ("b", b"1" * 8), ("c", b"1" * 8), ("d", b"1" * 8), ("a", b"2" * 8)):
        s.write(device, s.insert("setting", K, {"v": len(s.entries) % 2}), hlc=s.hlc(1), incarnation=incarnation)
    return s


def together(*leaves: Leaf) -> Leaf:
    """One leaf of the rows of several that write the same columns."""
    keys = [[key for column in same for key in column] for same in zip(*(leaf.keys for leaf in leaves), strict=True)]
    values = [
        [value for column in same for value in column] for same in zip(*(leaf.values for leaf in leaves), strict=True)
    ]
    return replace(leaves[0], keys=keys, values=values)


def updates_that_meet_different_writes_in_each_row() -> Script:
    """In one leaf: a row that the entry has seen, one that it has not, one with a rival, one that is newer."""
    s = Script("mixed updates")
    keys = [s.key("a", 1), s.key("a", 2), s.key("c", 3)]
    first = s.write("a", s.insert("trade", keys[0], {"symbol": "x", "qty": 5}))
    second = s.write("a", s.insert("trade", keys[1], {"symbol": "y", "qty": 5}))
    unseen = s.write("c", s.insert("trade", keys[2], {"symbol": "z", "qty": 5}))
    s.write("b", together(*(s.update("trade", key, {"qty": 6}) for key in keys[:2])), saw=[second])
    old = s.write("c", together(*(s.update("trade", key, {"qty": 7, "note": 7}) for key in keys)), saw=[first])
    s.write("d", together(*(s.update("trade", key, {"symbol": "d", "qty": 8}) for key in keys)), saw=[second])
    s.write("d", together(*(s.update("trade", key, {"qty": 9}) for key in keys)), saw=[old, unseen])
    return s


def updates_of_rows_whose_inserts_were_not_seen() -> Script:
    """What stands in the cells is what the ids imply, or what the side rows' base says."""
    s = Script("unseen inserts")
    keys, tags = [s.key("a", 1), s.key("b", 2)], [("t", 1), ("t", 2)]
    both = [s.insert("tagof", tag, {"w": tag[1], "body": b"1"}) for tag in tags]
    first = s.write("a", s.insert("trade", keys[0], {"symbol": "x", "qty": 5}), both[0])
    s.write("b", s.insert("trade", keys[1], {"symbol": "y", "qty": 5}), both[1])
    for device in "cd":
        trades = together(*(s.update("trade", key, {"symbol": device, "note": device}) for key in keys))
        s.write(device, trades, together(*(s.update("tagof", tag, {"w": 9}) for tag in tags)), saw=[first])
    early = [s.update("trade", key, {"qty": 0}) for key in keys]
    s.write("c", together(*early), hlc=s.hlc(0), incarnation=b"too slow")
    return s


SCRIPTS = (
    t23_owner_and_later_writer,
    ce1_void_deps_keep_the_causal_past,
    ce2_more,
    ce3_insert_and_delete_in_one_entry,
    ce4_equal_values,
    ce5_restore_without_insert,
    ce6_deps_not_closed_after_a_raised_cut_off,
    ce7_epoch_justified_by_a_void_entry,
    ce9_fork_twins_share_ids,
    a_dep_names_a_branch,
    a_lie_about_the_future,
    cut_off_raised_after_owned_dependents,
    concurrent_delete_edit_restore,
    one_cell_from_five_logs,
    updates_that_meet_different_writes_in_each_row,
    updates_of_rows_whose_inserts_were_not_seen,
)


@pytest.mark.parametrize("make", SCRIPTS, ids=lambda make: make.__name__)
def test_counter_example(make: Callable[[], Script]) -> None:
    history = make().history
    check(history, list(itertools.islice(all_orders(history, limit=120), 120)))
    held = {entry.hash for entry in history.entries}
    if all(dep.hash in held for entry in history.entries for dep in entry.header.deps):
        check(history, orders(history, 12, random.Random(1)))
