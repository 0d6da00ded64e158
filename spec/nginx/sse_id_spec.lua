-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local sse_id = require "resty.mooring.router.sse_id"

describe("resty.mooring.router.sse_id", function()
    describe(".check", function()
        it("takes names of arguments, or a path", function()
            for _, where in ipairs {
                { arg = "sessionId" }, { arg = { "a", "b-c", "d.e" } },
                { path = "/messages/" }, { path = "/" },
            } do
                assert.is_true((sse_id.check(where)))
            end
        end)

        it("refuses anything else", function()
            for _, where in ipairs {
                "sessionId", {}, { arg = {} }, { arg = "a=b" }, { arg = 1 },
                { path = "messages/" }, { path = "/messages" }, { path = 1 },
                { header = "x" }, { arg = "a", path = "/b/" },
            } do
                local ok, must = sse_id.check(where)
                assert.is_false(ok)
                assert.matches("^must be ", must)
            end
        end)
    end)

    describe(":find", function()
        local ids = sse_id.new()

        it("knows the names of the SDKs", function()
            assert.equal("x", ids:find("/messages", "sessionId=x"))
            assert.equal("x", ids:find("/messages", "a=b&session_id=x&c"))
        end)

        it("compares names and values decoded, and names without case", function()
            assert.equal("x-y", ids:find("/m", "session%49d=x%2Dy"))
            assert.equal("x", ids:find("/m", "sessionid=x"))
        end)

        it("finds none where there is none", function()
            for _, args in ipairs { "", "a=b", "sessionId", "sessionId=" } do
                assert.is_nil(ids:find("/m", args))
            end
            assert.is_nil(ids:find("/m", nil))
        end)

        it("takes several for an error, in any disguise", function()
            for _, args in ipairs {
                "sessionId=x&sessionId=x", "sessionId=x&session_id=y",
                "sessionId=x&session%49d=y", "sessionId&sessionId=x",
                "sessionId=x&sessionid=y", "a;sessionId=x", "sessionId=x%",
            } do
                assert.is_false(ids:find("/m", args))
            end
        end)

        it("looks at every argument, not at the first hundred", function()
            local args = ("a=b&"):rep(500) .. "sessionId=x"
            assert.equal("x", ids:find("/m", args))
            assert.is_false(ids:find("/m", "sessionId=y&" .. args))
        end)

        it("takes only the name it is told", function()
            local other = sse_id.new { arg = "token" }
            assert.equal("x", other:find("/m", "sessionId=y&token=x"))
        end)

        it("takes the path segment behind a prefix", function()
            local path = sse_id.new { path = "/messages/" }
            assert.equal("x", path:find("/messages/x", "sessionId=y"))
            assert.equal("x", path:find("/messages/x/more"))
            assert.is_nil(path:find("/messages/"))
            assert.is_nil(path:find("/messages"))
            assert.is_nil(path:find("/other/x"))
        end)
    end)

    describe(":of_endpoint", function()
        local ids = sse_id.new()

        local function find(url, base, host)
            return { ids:of_endpoint(url, base or "/sse", host or "h:8080") }
        end

        it("resolves a relative URL", function()
            assert.same({ "x", "/messages" }, find("/messages?sessionId=x"))
            assert.same({ "x", "/a/messages" },
                find("messages?sessionId=x", "/a/sse"))
            assert.same({ "x", "/messages" },
                find("../messages?sessionId=x", "/a/sse"))
            assert.same({ "x", "/a/" }, find("./?sessionId=x", "/a/sse"))
            assert.same({ "x", "/a/sse" }, find("?sessionId=x", "/a/sse"))
            assert.same({ "x", "/a/" }, find(".?sessionId=x", "/a/sse"))
            assert.same({ "x", "/a/" }, find("..?sessionId=x", "/a/b/sse"))
            assert.same({ "x", "/" }, find("..?sessionId=x", "/a/sse"))
            assert.same({ "x", "/" }, find("../../..?sessionId=x", "/a/sse"))
            assert.same({ "x", "/m n+" }, find("/m%20n+?sessionId=x#y"))
        end)

        it("takes an absolute URL to the same host", function()
            assert.same({ "x", "/m" }, find("http://h:8080/m?sessionId=x"))
            assert.same({ "x", "/m" }, find("//H:8080/m?sessionId=x"))
            assert.same({ "x", "/m" },
                find("https://h/m?sessionId=x", "/", "h:443"))
            assert.same({ "x", "/" },
                find("http://h?sessionId=x", "/", "h:80"))
        end)

        it("leaves a URL to another host alone", function()
            for _, url in ipairs {
                "http://other/m?sessionId=x", "//h:8081/m?sessionId=x",
                "http://h:8080@other/m?sessionId=x",
                "http://h:8080.other/m?sessionId=x",
            } do
                assert.same({}, find(url))
            end
        end)

        it("says where it has found none or several", function()
            assert.same({ nil, "/m" }, find("/m?token=x"))
            assert.same({ false, "/m" }, find("/m?sessionId=x&sessionId=y"))
        end)

        it("takes a time that does not grow with the square of the path", function()
            local long = ("a"):rep(65536)
            local began = os.clock()
            assert.same({ "x", "/" .. long .. "/" }, find("/" .. long .. "/?sessionId=x"))
            assert.is_true(os.clock() - began < 1) -- of CPU; it took 18
        end)

        it("finds the id in the path", function()
            local path = sse_id.new { path = "/messages/" }
            local id, whole = path:of_endpoint("messages/x?y=z", "/sse", "h")
            assert.same({ "x", "/messages/x" }, { id, whole })
        end)
    end)
end)
