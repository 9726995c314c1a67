# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that reports errors of transitions and survives requests that do not fit its state.

rclpy 7.1.6 swallows exceptions of transition callbacks, ends the process when a requested transition is not allowed
now, and stops every timer while a callback loads a model. Here transitions are coroutines: work that takes long runs
in a thread while the executor goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future

from reflex_core.errors import ReflexError
from reflex_ros.node.logging_bridge import NodeLog

Result = TypeVar("Result")
Work = Callable[[], Awaitable[None]]

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class ManagedNode(LifecycleNode):  # type: ignore[misc]
    """`work` maps a transition state (State.TRANSITION_STATE_*) to the coroutine that does it.

    A ReflexError in it refuses the transition with its one sentence; anything else is logged with its traceback and
    ends in `unconfigured` by way of the clean-up work.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.work: dict[int, Work] = {}
        self.refusal = ""
        self.before_change: Callable[[list[Parameter]], list[Parameter]] = list
        self.after_change: Callable[[list[Parameter]], None] = lambda _: None

    def get_logger(self) -> NodeLog:
        """Return the logger of this node, whose records go where those of the core go."""
        return NodeLog(super().get_logger())

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set each parameter by itself, as rclpy does."""
        return [self.set_parameters_atomically([each]) for each in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set the changes as `before_change` returns them; its ReflexError refuses them all with its sentence.

        rclpy refuses an int for a double before any callback, and reports no unknown name. `after_change` is called with
        what was set: rclpy of Humble has no callback for that.
        """
        try:
            taken = self.before_change(parameter_list)
        except ReflexError as error:
            return SetParametersResult(successful=False, reason=str(error))
        result: SetParametersResult = super().set_parameters_atomically(taken)
        if result.successful:
            self.after_change(taken)
        return result

    @property
    def state(self) -> str:
        """unconfigured, inactive, active, finalized, or the transition that is under way."""
        return str(self._state_machine.current_state[1])

    async def change(self, transition_id: int) -> bool:
        """Go through one transition. False when it is not allowed now or its work did not succeed."""
        before = self.state
        try:
            self._state_machine.trigger_transition_by_id(transition_id, True)
        except RCLError:
            self.get_logger().warning(f"transition {transition_id} refused: the node is {before}")
            return False
        outcome = await self._do(self._state_machine.current_state[0])
        self._state_machine.trigger_transition_by_label(outcome.to_label(), True)
        if outcome == ERROR:
            recovered = await self._do(State.TRANSITION_STATE_CLEANINGUP)
            self._state_machine.trigger_transition_by_label(recovered.to_label(), True)
        self.get_logger().info(f"{before} -> {self.state}")
        return bool(outcome == SUCCESS)

    async def _do(self, state_id: int) -> TransitionCallbackReturn:
        work = self.work.get(state_id)
        self.refusal = ""
        if work is None:
            return SUCCESS
        try:
            await work()
        except ReflexError as error:
            self.refusal = str(error)
            self.get_logger().error(f"{self.state} refused: {error}")
            return FAILURE
        except Exception as error:
            self.refusal = f"{type(error).__name__}: {error}"
            self.get_logger().error(f"{self.state} failed", exc_info=error)
            return ERROR
        return SUCCESS

    async def off_executor(self, call: Callable[[], Result]) -> Result:
        """Run a slow call in a thread; the executor serves everything else meanwhile.

        Extensions written in Rust panic with what is no Exception, for which no caller here waits: it is raised as a RuntimeError.
        """
        future = Future(executor=self.executor)

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                is_usual = isinstance(error, Exception)
                future.set_exception(error if is_usual else RuntimeError(f"{type(error).__name__}: {error}"))
            executor = self.executor
            if executor is not None:
                executor.wake()

        threading.Thread(target=run, name="transition", daemon=True).start()
        return await future  # type: ignore[no-any-return]

    async def _LifecycleNodeMixin__on_change_state(  # noqa: N802
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        transition_id = request.transition.id
        if request.transition.label:
            try:
                transition_id = self._state_machine.get_transition_by_label(request.transition.label)
            except RCLError:
                self.get_logger().warning(
                    f"transition {request.transition.label!r} refused: the node is {self.state}"
                )
                response.success = False
                return response
        response.success = await self.change(transition_id)
        return response


CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
