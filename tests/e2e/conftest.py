from tests.support.stack import running_stack, stack

__all__ = ["running_stack", "stack"]
