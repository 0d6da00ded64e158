-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local policy = require "resty.mooring.policy"

describe("resty.mooring.policy", function()
    local A = { url = "http://a:1", weight = 1 }
    local B = { url = "http://b:1", weight = 1 }
    local files = {}

    local function file(text)
        local path = os.tmpname()
        files[#files + 1] = path
        local out = assert(io.open(path, "w"))
        out:write(text)
        out:close()
        return path
    end

    teardown(function()
        for _, path in ipairs(files) do
            os.remove(path)
        end
    end)

    local function wrong(option)
        local ok, err = pcall(policy.compile, option)
        assert.is_false(ok)
        return err
    end

    describe(".compile", function()
        it("makes round robin of nothing, and of its name", function()
            for _, option in ipairs { false, "round_robin" } do
                local engine = policy.compile(option or nil)
                local urls = {}
                for i = 1, 4 do
                    urls[i] = engine:route({}, { A, B }).url
                end
                assert.same({ A.url, B.url, A.url, B.url }, urls)
            end
        end)

        it("names file, line and field of a mistake", function()
            assert.matches(":2: \"rout\" is not a field of a policy",
                wrong(file "return {\n rout = print,\n}"))
        end)

        it("says which functions there are", function()
            local engine = policy.compile { admit = function() end }
            assert.is_true(engine.has.admit)
            assert.is_false(engine.has.key)
            assert.is_false(engine.has.route)
        end)

        it("takes a file that returns a table", function()
            local engine = policy.compile(file [[
                return { route = function(_, backends) return backends[2] end }
            ]])
            assert.equal(B, engine:route({}, { A, B }))
        end)

        it("takes no backend when a policy's route answers false", function()
            local engine = policy.compile {
                { name = "none", route = function() return false end },
                { name = "second", route = function(_, list) return list[1] end },
            }
            assert.is_nil(engine:route({}, { A, B }))
            assert.equal(0, engine:stats().none.route.errors)
            assert.equal(0, engine:stats().second.route.calls)
        end)

        it("takes a table without functions", function()
            local engine = policy.compile {}
            assert.equal(A, engine:route({}, { A }))
            assert.is_true(engine:admit({}, {}))
            assert.equal("forget", engine:on_unreachable({}, {}))
            assert.is_nil(engine:key({}))
        end)
    end)
end)
