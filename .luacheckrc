-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
std = "ngx_lua"
max_line_length = 80
exclude_files = { "build" }
-- Methods take self, whether they need it or not.
self = false

files["spec"] = {
    std = "+ngx_lua+busted",
    max_line_length = 100,
}
