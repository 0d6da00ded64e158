-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local sole = require "resty.mooring.router.sole"

describe("resty.mooring.router.sole", function()
    describe(".argument", function()
        local names = { [sole.argument_name("my_Id")] = true }

        local function all(expected, texts)
            for _, text in ipairs(texts) do
                assert.same({ text, expected }, { text, sole.argument(text, names) })
            end
        end

        it("is decoded, by any name that some backend takes for it", function()
            all("a b", { "my_id=a+b", "MY%5fid=%61%20b", "x&my_id=a b&y=%", "my.id=a+b",
                         "my_id[]=a+b", "my_id[0][x]=a+b", "%20my_id=a+b", "my_id%00x=a+b",
                         "my[id=a+b", "a=1;b=2&my_id=a+b" })
        end)

        it("is none where there is none", function()
            all(nil, { "", "my_id", "my_id=", "=my_id", "x=my_id=a", "my-id=a", "a=my_id",
                       "my_id2=a", "[]my_id=a", "x[my_id]=a", "&&;" })
        end)

        it("is not to be told where there are several, or may be", function()
            all(false, { "my_id=a&my_id=b", "my_id=a&my_id=a", "my_id&my_id=a",
                         "x;my_id=a", "my_id=a;", "my_id=a;x", "my_id=a;b&y", "my_id=a%",
                         "my_id=%4", "m%u0079_id=a", "my_id=%zz", "my_id=a&%=b" })
        end)
    end)

    describe(".cookie", function()
        local name = sole.cookie_name("sid")

        local function all(expected, texts)
            for _, text in ipairs(texts) do
                assert.same({ text, expected }, { text, sole.cookie(text, name) })
            end
        end

        it("is decoded, without quotes and what is around it", function()
            all("a=/", { "sid=a=/", 'x=y;sid="a=/"', "sid = a%3d%2F ;", "\tsid=a=/\255",
                         "sid=a=/; sid=a%3D/", "SID=b; sid=a=/", "sid[]=a=/",
                         'a="1, 2"; sid=a=/' })
        end)

        it("is none where there is none", function()
            all(nil, { "", "sid", "sid=", 'sid=""', "Sid=a", "a=sid", "xsid=a", "=sid",
                       "; ;" })
        end)

        it("is not to be told where there are several, or may be", function()
            all(false, { "sid=a; sid=b", "sid=a; sid", "sid; sid=a", "sid=a b", 'sid="a',
                         'sid=a"', 'sid="a\\142"', "sid=a,b", "x=y, sid=a", "sid=a%",
                         "sid=\1a\1b", 'x="; sid=b"; sid=a' })
        end)
    end)

    it("knows URLs that do not end where nginx' query does", function()
        assert.is_true(sole.has_fragment { request_uri = "/a?b#&c" })
        assert.is_false(sole.has_fragment { request_uri = "/a?b" })
        assert.is_false(sole.has_fragment {})
    end)
end)
