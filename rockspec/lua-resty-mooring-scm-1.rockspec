-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
rockspec_format = "3.0"
package = "lua-resty-mooring"
version = "scm-1"

source = {
    url = "git+https://localhost/lua-resty-mooring.git",
}

description = {
    summary = "Which backend owns this session? Sticky routing for stateful "
              .. "servers behind several nginx replicas",
    detailed = [[
        A bounded LRU in memory shared by all nginx workers over Redis, for
        OpenResty / nginx Lua and plain LuaJIT, with a router for MCP servers.
    ]],
    license = "Apache-2.0",
    labels = { "nginx", "openresty", "redis", "routing", "mcp" },
}

supported_platforms = { "linux" }

-- lua-cjson is not listed: distributions ship it outside luarocks' sight, and
-- OpenResty brings its own.
dependencies = {
    "lua == 5.1",
}

external_dependencies = {
    HIREDIS = { header = "hiredis/hiredis.h" },
}

build = {
    type = "make",
    build_variables = {
        CFLAGS = "$(CFLAGS) -I$(HIREDIS_INCDIR)",
        LDFLAGS = "-L$(HIREDIS_LIBDIR)",
    },
    install_variables = {
        LUADIR = "$(LUADIR)",
        LIBDIR = "$(LIBDIR)",
        CFLAGS = "$(CFLAGS) -I$(HIREDIS_INCDIR)",
        LDFLAGS = "-L$(HIREDIS_LIBDIR)",
    },
    build_target = "all",
    install_target = "install",
}
