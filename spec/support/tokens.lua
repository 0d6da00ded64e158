-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- JSON web tokens with any claims. Their signature is worth nothing.

local _M = {}

local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

--- base64url without padding, RFC 4648.
function _M.base64url(text)
    local digits = {}
    for i = 1, #text, 3 do
        local a, b, c = text:byte(i, i + 2)
        local n = a * 65536 + (b or 0) * 256 + (c or 0)
        for j = 3, c and 0 or b and 1 or 2, -1 do
            local value = math.floor(n / 64 ^ j) % 64 + 1
            digits[#digits + 1] = LETTERS:sub(value, value)
        end
    end
    return table.concat(digits)
end

--- A token with this text as its claims.
function _M.make(claims)
    return _M.base64url('{"alg":"HS256"}') .. "." .. _M.base64url(claims) .. ".c2lnbmVk"
end

--- The value of an Authorization header that speaks of someone.
function _M.bearer(sub)
    return ('Bearer %s'):format(_M.make(('{"sub":"%s"}'):format(sub)))
end

return _M
