-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local backends = require "resty.mooring.router.backends"
local peers = require "resty.mooring.router.peers"

local A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"

describe("resty.mooring.router.peers", function()
    local incarnations, allow, set

    local members = backends.read { { url = A, weight = 3 } }
    local labels = { label = function(_, url) return #url end }

    before_each(function()
        incarnations = {}
        allow = { permits = function(_, url) return url == A or url == B end }
        set = peers.new(allow, labels,
            function(url) return incarnations[url] or 0 end, members)
    end)

    it("knows the references of the members", function()
        assert.same({ A, A, 3 }, { set.known[A].reference, set.known[A].url,
            set.known[A].weight })
        assert.is_nil(set.known[B])
        incarnations[A] = 2
        set:reset(members)
        assert.is_nil(set.known[A])
        assert.equal(A, set.known[A .. "#2"].url)
        assert.equal(A .. "#2", set:current(A).reference)
    end)

    it("labels what may be dialled, and nothing that only a function knows",
       function()
        assert.equal(#B, set:find(B).label)
        assert.equal(#B, set:named(B).label)
        allow.ask = true
        set:reset(members)
        assert.equal(0, set:find(B).label)
    end)

    it("keeps what it has found", function()
        local peer = set:find(B)
        assert.same({ B, B }, { peer.url, peer.reference })
        assert.equal(peer, set.known[B])
    end)

    it("tells by which id the backend knows the session", function()
        local peer = set:find(A .. "#;x%22")
        assert.same({ A, A .. "#;x%22", "x\"", 3 }, { peer.url, peer.reference,
            peer.session_id, peer.weight })
        assert.is_nil(set.known[A].session_id)
    end)

    it("takes no binding from before a drop", function()
        incarnations[A] = 2
        set:reset(members)
        for _, reference in ipairs { A, A .. "#1", A .. "#1;x", A .. "#;x" } do
            assert.same({ nil, "dropped" }, { set:find(reference) })
        end
        assert.equal(A, set:find(A .. "#2").url)
        assert.equal("x", set:find(A .. "#2;x").session_id)
    end)

    it("takes one that is newer than what it knows, and says so", function()
        local newer = 0
        set.on_newer = function() newer = newer + 1 end
        assert.equal(A, set:find(A .. "#7").url)
        assert.equal(1, newer)
        set:find(A)
        set:find(B .. "#;x")
        assert.equal(1, newer)
    end)

    it("tells what may not be dialled from what was dropped", function()
        incarnations["http://x:80"] = 2
        for _, reference in ipairs { "http://x:80#1", A .. "#", A .. "#x", "",
            "#1" } do
            assert.same({ nil, "not_allowed" }, { set:find(reference) })
        end
    end)

    it("asks a function `allow` each time", function()
        allow.ask = true
        assert.equal(B, set:find(B).url)
        assert.is_nil(set.known[B])
        assert.is_nil(set.known[B .. "#1"])
    end)

    it("leaves what a request has as it was when there are too many", function()
        local first = set:find(A .. "#1")
        for i = 1, 16384 do
            set:find(A .. "#;" .. i)
        end
        assert.is_nil(set.known[A .. "#1"])
        assert.equal(A, first.url)
        assert.equal(A, set.known[A].url)
    end)
end)
