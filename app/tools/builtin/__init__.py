"""The built-in tools of AgentChord; an agent has the tools that it names.

A developer can add tools here from other sources, such as plugins and servers of the Model Context
Protocol, because the registry takes any mapping from names to tools.
"""

from app.configuration.sections import ToolSettings
from app.sandbox.processes import Sandbox
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


def builtin_tools(settings: ToolSettings, sandbox: Sandbox) -> dict[str, Tool | str]:
    """Make the built-in tools that the operator has configured.

    Args:
        settings: The configuration's section ``tools``.
        sandbox: Reads what would take the process too long, and runs queries.

    Returns:
        Tools by name. If a tool lacks a setting, the mapping has, in place of the tool, a string
        that names the setting.

    Raises:
        ConfigurationError: If a database cannot be read by ``sql_query``.
    """
    tools = [
        *web_tools(settings.http, sandbox),
        *sql_tools(settings.sql, sandbox),
        *file_tools(settings.files),
    ]
    return _NOT_CONFIGURED | {tool.name: tool for tool in tools}
