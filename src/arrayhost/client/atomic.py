"""`Atomic`: read-modify-write of elements in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.client.evaluating import evaluate_in_host
from arrayhost.evaluation.operations import HOSTED, Operation

if TYPE_CHECKING:
    from arrayhost.client.array import HostedArray

__all__ = ["Atomic"]


class Atomic:
    """What ``a.atomic`` gives: updates of elements that nobody can come between.

    Notes
    -----
    Each method is one round trip, and none inside a section of one's own. `index` is any index that NumPy takes; errors
    are NumPy's. Nothing is written if the method raises. Safety: any thread or process.
    """

    __slots__ = ("_array",)

    def __init__(self, array: HostedArray) -> None:
        self._array = array

    def add(self, index: Any, value: Any) -> Any:
        """Carry out ``a[index] += value``.

        Returns
        -------
        scalar or ndarray
            The elements before it, by value.

        Notes
        -----
        As with ndarrays, an element that `index` names more than once is added to once; ``np.add.at(a, index, value)``
        adds each time, and is atomic too.
        """
        return self._update("add", index, value)

    def exchange(self, index: Any, value: Any) -> Any:
        """Carry out ``a[index] = value``; return the elements before it, by value."""
        return self._update("exchange", index, value)

    def compare_exchange(self, index: Any, expected: Any, new: Any) -> Any:
        """Carry out ``a[index] = new`` if all elements there equal `expected`; NaN equals NaN.

        Returns
        -------
        scalar or ndarray
            The elements before it, by value: the exchange was made if they equal `expected`.
        """
        return self._update("compare_exchange", index, expected, new)

    def _update(self, name: str, *args: Any) -> Any:
        array = self._array
        return evaluate_in_host(Operation(HOSTED, name), (array, *args, array._timeout(None)), {})
