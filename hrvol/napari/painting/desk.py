"""Keep what is open for painting, and bring news of its threads into that of the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Qt, Signal

from hrvol.errors import UsageError
from hrvol.napari.background import Background
from hrvol.napari.notify import line_of, report
from hrvol.napari.painting.board import Board
from hrvol.napari.painting.seen import Seen


class Desk(QObject):
    """The strokes that are open, and the session on them.

    Parameters
    ----------
    owner
        The panel.
    """

    opened = Signal()
    """Strokes were opened: :attr:`board`."""
    closed = Signal()
    """They were closed."""
    began = Signal()
    """A session began: :attr:`session`."""
    failed = Signal()
    """A session could not begin, which was reported."""
    drawn = Signal(object)
    """A change of the strokes."""
    previewed = Signal(object)
    """A preview."""
    emptied = Signal()
    """The preview is gone: fewer than two classes are drawn."""
    progressed = Signal(str, int, int)
    """A stage, how much of it is done, and all of it."""

    _news = Signal(object)
    _computed = Signal(str, int, int)

    def __init__(self, owner: QObject) -> None:
        super().__init__(owner)
        self.board: Board | None = None
        self.session: Any = None
        self.recipe = ""
        self._background = Background(self)
        self._waiting: list[Callable[[Any], Any]] = []
        self._opening = ""
        self._requests = 0  # of sessions; that of the last one is begun, unless the strokes were closed
        self._cancelled = False  # and nothing was requested since
        self._forget: list[Callable[[], None]] = []
        self._news.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self._computed.connect(self._progress)

    @property
    def busy(self) -> bool:
        """Whether strokes or a session are being opened."""
        return self._background.busy

    def need(self) -> Board:
        """Return what is open.

        Raises
        ------
        UsageError
            Nothing is.
        """
        if self.board is None:
            raise UsageError("strokes: found none open, expected New strokes or Open strokes first")
        return self.board

    def take(self, board: Board) -> None:
        """Begin to work on a board; what was open is closed, and stays if it cannot be."""
        if not self.close():
            board.store.close()
            return
        self.board = board
        self._forget.append(board.store.subscribe(self._told(board, self.drawn)))
        self.opened.emit()

    def with_session(self, recipe: str, then: Callable[[Any], Any] = lambda session: None) -> None:
        """Call a function with the session of a recipe, which is begun first where needed."""
        board = self.need()
        self._cancelled = False
        if self.session is not None and self.recipe == recipe:
            then(self.session)
            return
        self._waiting.append(then)
        if self._opening == recipe:
            return
        self._opening = recipe
        self._requests += 1
        number = self._requests
        self._end_session()

        def begin() -> tuple[int, str, Any]:
            session = board.begin(recipe)
            if not isalive(self):
                session.close()
            return number, recipe, session

        def failed(error: Exception) -> None:
            wanted = number == self._requests
            if isinstance(error, CancelledError):  # by the begin of another one: a server has one session
                if wanted:  # that one is an earlier one, whose thread was late
                    self._background.call(begin, self._began, failed)
                return
            if wanted:
                self._opening = ""
                self._waiting.clear()
                self.failed.emit()
            if board is self.board:  # else closed meanwhile
                report(error)

        self._background.call(begin, self._began, failed)

    def _began(self, found: tuple[int, str, Any]) -> None:
        number, recipe, session = found
        if number != self._requests:  # another one is wanted by now, or none
            _in_thread(session.close)
            return
        self._opening = ""
        self.session, self.recipe = session, recipe
        session.on_preview(self._told(session, self.previewed))
        session.on_nothing(lambda: self._post(session, self.emptied, ()))
        session.on_progress(lambda *values: self._post(session, self._computed, values))
        session.on_error(lambda line: self._post(session, None, (line,)))
        self.began.emit()
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            function(session)

    def look(self, seen: Seen) -> None:
        """Tell the session what is visible, if there is one."""
        if self.session is not None:
            self._cancelled = False
            self.session.view(seen.plane, seen.rows, seen.columns, seen.level)

    def cancel(self) -> None:
        """Cancel what is computed, and what waits for a session, and drop progress on its way."""
        self._waiting.clear()
        self._cancelled = True
        if self.session is not None:
            self.session.cancel()

    def save(self) -> bool:
        """Save the strokes; return whether they may be closed. An error is shown.

        Those of a server may: what it has not received is kept on this machine.
        """
        if self.board is None or self.board.remote:
            return True
        try:
            self.board.store.flush()
        except Exception as error:
            self._report_unsaved(error)
            return False
        return True

    def close(self) -> bool:
        """End the session, and save and close the strokes; return ``False`` if they cannot be saved.

        They stay open then: what is drawn is only in memory. The error is shown.
        """
        board = self.board
        if board is not None:
            try:
                board.store.close()
            except Exception as error:
                if not board.remote:
                    self._report_unsaved(error)
                    return False
                report(error)
        self.board = None
        for forget in self._forget:
            forget()
        self._forget.clear()
        self._waiting.clear()
        self._opening = ""
        self._requests += 1
        self._end_session()
        if board is not None:
            self.closed.emit()
        return True

    def _report_unsaved(self, error: Exception) -> None:
        report(f"{line_of(error)}; the strokes stay open: close again to save them")

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.cancel()
            _in_thread(session.close)  # it waits for what cannot be interrupted

    def _told(self, source: Any, signal: Any) -> Callable[[Any], None]:
        return lambda value: self._post(source, signal, (value,))

    def _post(self, source: Any, signal: Any, values: tuple[Any, ...]) -> None:
        """Send news from any thread."""
        with suppress(RuntimeError):  # deleted just now
            if isalive(self):
                self._news.emit((source, signal, values))

    def _progress(self, stage: str, done: int, total: int) -> None:
        if not self._cancelled:
            self.progressed.emit(stage, done, total)

    def _deliver(self, news: tuple[Any, Any, tuple[Any, ...]]) -> None:
        source, signal, values = news
        if source is not self.board and source is not self.session:
            return  # of what was closed meanwhile
        if signal is None:
            report(*values)
        else:
            signal.emit(*values)


def _in_thread(function: Callable[[], Any]) -> None:
    def quiet() -> None:
        with suppress(Exception):  # nobody is there to hear
            function()

    threading.Thread(target=quiet, name="hrvol-close", daemon=True).start()
