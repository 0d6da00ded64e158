-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local protocol = require "resty.mooring.transport.protocol"

local opts = { host = "redis.example", port = 6379, user = "eve", password = "a%-b", db = 4 }

describe("resty.mooring.transport.protocol", function()
    describe(".encode", function()
        it("formats one command", function()
            assert.equal("*2\r\n$3\r\nGET\r\n$3\r\nk\0y\r\n", protocol.encode { "GET", "k\0y" })
        end)

        it("formats commands one after the other", function()
            assert.equal("*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
                         protocol.encode_all { { "PING" }, { "ECHO", "" } })
        end)

        it("blames the caller for an empty command", function()
            local ok, err = pcall(function() return protocol.encode {} and nil end)
            assert.is_false(ok)
            assert.matches("protocol_spec", err, 1, true)
            assert.matches("could not format a command", err, 1, true)
        end)
    end)

    describe(".around", function()
        it("makes two commands of what stands before their last argument", function()
            local heads = { "*2\r\n$3\r\nGET\r\n$4\r\np:", "\r\n*2\r\n$4\r\nPTTL\r\n$4\r\np:" }
            assert.equal(protocol.encode_all { { "GET", "p:id" }, { "PTTL", "p:id" } },
                         protocol.around(heads, "id"))
        end)
    end)

    describe(".reader", function()
        local reader

        before_each(function() reader = protocol.reader(1000) end)

        it("decodes every kind of reply", function()
            assert.is_true(reader:feed("+OK\r\n$-1\r\n:-7\r\n-ERR no\r\n*2\r\n*0\r\n$1\r\nx\r\n"))
            assert.equal("OK", reader:next())
            assert.is_false(reader:next())
            assert.equal(-7, reader:next())
            assert.same({ err = "ERR no" }, reader:next())
            assert.same({ { n = 0 }, "x", n = 2 }, reader:next())
            assert.is_nil(reader:next())
        end)

        it("takes bytes cut anywhere", function()
            local text = "*2\r\n$5\r\nhello\r\n:12\r\n"
            for i = 1, #text do
                assert.is_nil(reader:next())
                reader:feed(text:sub(i, i))
            end
            assert.same({ "hello", 12, n = 2 }, reader:next())
        end)

        it("says what is malformed, and stays dead", function()
            reader:feed("?what\r\n")
            for _ = 1, 2 do
                local reply, err = reader:next()
                assert.is_nil(reply)
                assert.equal('malformed reply: Protocol error, got "?" as reply type byte', err)
            end
            assert.is_nil((reader:feed("+OK\r\n")))
        end)

        it("bounds a reply", function()
            reader:feed("$1001\r\n")
            local _, err = reader:next()
            assert.equal("malformed reply: a reply takes more than 1000 bytes", err)
        end)
    end)

    describe(".address", function()
        it("names host and port, or the socket", function()
            assert.equal("redis.example:6379", protocol.address(opts))
            assert.equal("[::1]:1", protocol.address { host = "::1", port = 1 })
            assert.equal("unix:/run/redis", protocol.address { path = "/run/redis" })
        end)
    end)

    describe(".handshake", function()
        it("authenticates, then selects", function()
            assert.same({ { "AUTH", "eve", "a%-b" }, { "SELECT", "4" } }, protocol.handshake(opts))
        end)

        it("leaves out what there is no need for", function()
            assert.same({}, protocol.handshake { db = 0 })
            assert.same({}, protocol.handshake { user = "eve" })
            assert.same({ { "AUTH", "pw" } }, protocol.handshake { password = "pw" })
        end)
    end)

    describe(".check_handshake", function()
        local commands = protocol.handshake(opts)

        local function check(...)
            return protocol.check_handshake(commands, { ... }, opts)
        end

        it("is content with two times OK", function()
            assert.is_true(check("OK", "OK"))
        end)

        it("reports the first error", function()
            local ok, err, code = check({ err = "WRONGPASS no" }, { err = "NOAUTH" })
            assert.is_nil(ok)
            assert.equal("could not authenticate at redis.example:6379: WRONGPASS no", err)
            assert.equal("unavailable", code)
            ok, err = check("OK", { err = "ERR out of range" })
            assert.is_nil(ok)
            assert.equal("could not select database 4 at redis.example:6379: ERR out of range", err)
        end)

        it("keeps the password out", function()
            local _, err = check { err = "ERR a%-b is not it, nor is a%-b" }
            assert.matches("ERR <password> is not it, nor is <password>$", err)
            _, err = check {
                err = "ERR unknown command 'AUTH', with args beginning with: 'eve' 'a%-"
            }
            assert.matches("ERR unknown command 'AUTH'$", err)
        end)
    end)

    describe(".notify", function()
        it("passes the result on", function()
            local seen
            protocol.notify(function(...) seen = { ... } end, nil, "could not", "timeout")
            assert.same({ nil, "could not", "timeout" }, seen)
            protocol.notify(false, "reply")
            protocol.notify(nil, "reply")
        end)

        it("logs the error of a callback", function()
            local err = stub(require "resty.mooring.log", "err")
            protocol.notify(function() error("broken", 0) end, "reply")
            assert.stub(err).was_called_with("a callback failed: ", "broken")
            err:revert()
        end)
    end)
end)
