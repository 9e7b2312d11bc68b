"""The items of a conversation as one connection of the Realtime protocol has seen them.

Contract: order and last content, without sound; the newest few hundred. The history itself is the
context stage's. Pure.
"""

from collections import OrderedDict
from typing import Any

from parley_core.errors import AlreadyExists, InvalidArgument, NotFound

_REMEMBERED = 512


class Items:
    """Items by id, in their order."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.last: str | None = None

    def add(self, item: dict[str, Any]) -> str | None:
        """Adds an item at the end.

        Returns:
            Id of the item before it.
        """
        previous, self.last = self.last, str(item["id"])
        self._items[self.last] = item
        while len(self._items) > _REMEMBERED:
            self._items.popitem(last=False)
        return previous

    def get(self, item_id: str) -> dict[str, Any]:
        """The item.

        Raises:
            NotFound: reason ITEM_UNKNOWN.
        """
        item = self._items.get(item_id)
        if item is None:
            message = f"there is no item {item_id!r} in this connection"
            raise NotFound(message, reason="ITEM_UNKNOWN", field="item_id")
        return item

    def remove(self, item_id: str) -> None:
        """Removes an item."""
        del self._items[item_id]
        if self.last == item_id:
            self.last = next(reversed(self._items), None)

    def check_place(self, item_id: str | None, previous: str | None) -> None:
        """Refuses an id that is taken, and a place other than the end.

        Raises:
            AlreadyExists: reason ITEM_EXISTS.
            InvalidArgument: reason INSERTION_UNSUPPORTED.
        """
        if item_id is not None and item_id in self._items:
            message = f"there is an item {item_id!r} already"
            raise AlreadyExists(message, reason="ITEM_EXISTS", field="item.id")
        if previous not in (None, self.last or "root"):
            raise InvalidArgument(
                "items are added at the end of the conversation",
                reason="INSERTION_UNSUPPORTED",
                field="previous_item_id",
            )
