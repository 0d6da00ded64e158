-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local ffi = require "ffi"
local testing = require "resty.mooring.testing"

ffi.cdef [[
int mooring_spec_setenv(const char *, const char *, int) __asm__("setenv");
int mooring_spec_unsetenv(const char *) __asm__("unsetenv");
]]

describe("zone.lua", function()
    local function in_zone(zone)
        ffi.C.mooring_spec_setenv("ZONE", zone, 1)
        local ok, policy = pcall(testing.policy,
            { examples.path "zone.lua", { route = function(_, list) return list[#list] end } })
        ffi.C.mooring_spec_unsetenv("ZONE")
        assert(ok, policy)
        return policy
    end

    local backends = testing.backends {
        { url = "http://10.1.0.1:8080", inflight = 3 },
        { url = "http://10.1.0.2:8080", inflight = 2 },
        "http://10.2.0.1:8080", "http://10.3.0.1:8080",
    }

    it("stays in the zone, with the one that has less to do", function()
        local east, west, req = in_zone "east", in_zone "west", testing.request()
        for _ = 1, 10 do
            assert.equal("http://10.1.0.2:8080", east:route(req, backends).url)
            assert.equal("http://10.2.0.1:8080", west:route(req, backends).url)
        end
    end)

    it("leaves it to the next policy when there is no backend in the zone", function()
        local far = testing.backends { "http://10.1.0.1:8080", "http://10.3.0.1:8080" }
        assert.equal("http://10.3.0.1:8080", in_zone("west"):route(testing.request(), far).url)
    end)

    it("stops the start when the zone is not known", function()
        assert.has_error(function() in_zone "north" end)
    end)
end)
