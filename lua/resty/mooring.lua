-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- lua-resty-mooring: which backend owns this session?
--
--     local mooring = require "resty.mooring"
--     local store = mooring.local_storage.new { max_entries = 1000 }
--     local s = mooring.session.new(id, { metadata = { backend_url = url } })
--     store:store(s)
--     store:resolve(id) --> url

local mooring_ffi = require "resty.mooring.ffi"

return {
    VERSION = mooring_ffi._VERSION,
    errors = require "resty.mooring.errors",
    session = require "resty.mooring.session",
    local_storage = require "resty.mooring.local_storage",
    redis_storage = require "resty.mooring.redis_storage",
    routing_storage = require "resty.mooring.routing_storage",
}
