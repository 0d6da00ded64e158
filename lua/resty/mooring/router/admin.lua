-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The operator's side of a router, as a location:
--
--     GET                                   the backends
--     POST ?backend=http://a:80&do=drain    drain, undrain, down or drop
--
-- Whom it serves is up to nginx (allow, deny). A page in the operator's browser
-- is no operator: requests that name an Origin are refused, since a POST with
-- arguments needs no leave of anybody to be sent to another site.

local cjson = require "cjson"
local errors = require "resty.mooring.errors"

local concat = table.concat
local gsub = string.gsub
local ngx = ngx
local pairs = pairs
local sort = table.sort
local type = type

local _M = {}

-- What may be asked for, and what that is to router/membership.lua.
local CHANGES = { drain = "draining", undrain = "up", down = "down",
                  drop = "drop" }

local STATUS = {
    [errors.INVALID] = 400,
    [errors.NOT_FOUND] = 404,
    [errors.UNAVAILABLE] = 503,
    [errors.TIMEOUT] = 504,
    [errors.CLOSED] = 503,
}


local function answer(status, value)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Retry-After"] = status == 503 and "1" or nil
    -- cjson writes "http:\/\/", which is JSON but no pleasure to read
    ngx.say((gsub(cjson.encode(value), "\\/", "/")))
    return ngx.exit(ngx.HTTP_OK)
end


local function refuse(status, message, code)
    return answer(status, { error = message, code = code })
end


local function names_of_changes()
    local names = {}
    for name in pairs(CHANGES) do
        names[#names + 1] = name
    end
    sort(names)
    return concat(names, ", ")
end


-- An argument that has to be there once.
local function argument(args, name)
    local value = args[name]
    if type(value) == "table" then
        return nil, "the argument `" .. name .. "` is there several times"
    elseif type(value) ~= "string" or value == "" then
        return nil, "the argument `" .. name .. "` is missing"
    end
    return value
end


local function backend_of(router, url)
    for _, backend in ipairs(router.set:stats()) do
        if backend.url == url then
            return backend
        end
    end
end


local function change(router)
    local args = ngx.req.get_uri_args(10)
    for name in pairs(args) do
        if name ~= "backend" and name ~= "do" then
            return refuse(400, "there is no argument `" .. name .. "`",
                          errors.INVALID)
        end
    end
    local url, wrong = argument(args, "backend")
    local what
    if url then
        what, wrong = argument(args, "do")
    end
    if wrong then
        return refuse(400, wrong, errors.INVALID)
    elseif not CHANGES[what] then
        return refuse(400, "the argument `do` must be one of "
                           .. names_of_changes(), errors.INVALID)
    end
    local changed, err, code = router:change(url, CHANGES[what])
    if not changed then
        if code == errors.INVALID or code == errors.NOT_FOUND then
            err = "the argument `backend`: " .. err
        end
        return refuse(STATUS[code] or 503, err, code)
    end
    return answer(200, { done = what, url = changed,
                         backend = backend_of(router, changed) })
end


---
-- Serves the current request. For content_by_lua.
function _M.run(router)
    local method = ngx.req.get_method()
    ngx.req.discard_body()
    if ngx.var.http_origin then
        return refuse(403, "requests from web pages are not served",
                      errors.INVALID)
    elseif method == "POST" then
        return change(router)
    elseif ngx.var.args then
        -- Somebody wants something done, and must not believe that it was.
        ngx.header["Allow"] = "POST"
        return refuse(405, "with arguments the method must be POST",
                      errors.INVALID)
    elseif method == "GET" or method == "HEAD" then
        return answer(200, { backends = router.set:stats() })
    end
    ngx.header["Allow"] = "GET, HEAD, POST"
    return refuse(405, "the method must be GET or POST", errors.INVALID)
end


return _M
