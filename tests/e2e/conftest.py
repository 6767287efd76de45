from tests.stack import running_stack, stack

__all__ = ["running_stack", "stack"]
