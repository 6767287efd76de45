"""The tools that come with AgentChord; an agent has those that it names.

Tools from elsewhere (servers of the Model Context Protocol, plugins) join here: whatever gives
tools by name can stand beside these in the registry.
"""

from app.configuration.sections import ToolSettings
from app.tools.builtin.files import file_tools
from app.tools.builtin.sql import sql_tools
from app.tools.builtin.web import web_tools
from app.tools.tool import Tool

_NOT_CONFIGURED = {
    "list_files": "set tools.files.folder",
    "read_file": "set tools.files.folder",
    "write_file": "set tools.files.folder",
    "sql_query": "name a database under tools.sql",
}


def builtin_tools(settings: ToolSettings) -> dict[str, Tool | str]:
    """The built-in tools by name, as the operator has configured them.

    Args:
        settings: The configuration's section ``tools``.

    Returns:
        Tools; in place of one that cannot work yet, what is to be configured for it.

    Raises:
        ConfigurationError: If a database cannot be read by ``sql_query``.
    """
    tools = [*web_tools(settings.http), *sql_tools(settings.sql), *file_tools(settings.files)]
    return _NOT_CONFIGURED | {tool.name: tool for tool in tools}
