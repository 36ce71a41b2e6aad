// Finds races: accesses of two threads to a word, one of them a write, that nothing orders.
//
// What orders: within a block __syncthreads, within a warp also __syncwarp of all its lanes.
// Nothing orders blocks. Shuffles and votes order nothing: the CUDA guide promises it of __syncwarp
// alone. Atomics are ordered among themselves, and volatile reads with atomics. Items shorter than
// four bytes that share a word are taken for one.
//
// Of each word and kind of access the last one is kept, and whether threads of other lanes, warps or
// blocks did the same since the last barrier.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch.h"

namespace {

enum Access { PLAIN_READ, VOLATILE_READ, PLAIN_WRITE, ATOMIC_UPDATE, N_ACCESSES };

// Whether two accesses of threads that nothing orders are a race.
constexpr bool CONFLICT[N_ACCESSES][N_ACCESSES] = {
    {false, false, true, true},
    {false, false, true, false},
    {true, true, true, true},
    {true, false, true, false},
};
constexpr const char* DONE[N_ACCESSES] = {"read", "read", "wrote", "updated"};
constexpr const char* DOES[N_ACCESSES] = {"reads", "reads", "writes", "updates"};

// Where a thread stands: threads of a block are ordered by its barriers, lanes by those of a warp.
struct Moment {
    u32 block, barriers, warp_barriers;
    u16 thread;
};

// Whose access is in conflict: a thread of another block, the last one, another one of this block.
enum Who { NOBODY, BLOCK, LAST, ANOTHER };

class Word {
  public:
    struct Seen {
        Moment last;
        i32 line;
        bool any, other_lane, other_warp, other_block;
    };

    // The conflicting access, if there is one, and by whom.
    const Seen* conflict(Access access, const Moment& now, Access* with, Who* who) const {
        for (int k = 0; k < N_ACCESSES; k++) {
            const Seen& s = seen[k];
            if (!s.any || !CONFLICT[access][k]) continue;
            *with = Access(k);
            *who = by_whom(s, now);
            if (*who != NOBODY) return &s;
        }
        return nullptr;
    }

    void add(Access access, const Moment& now, i32 line) {
        Seen& s = seen[access];
        const bool same_block = s.any && s.last.block == now.block;
        const bool since = same_block && s.last.barriers == now.barriers;  // the last barrier
        const bool same_warp = since && s.last.thread / WARP == now.thread / WARP;
        const bool lanes = same_warp && s.last.warp_barriers == now.warp_barriers;
        s.other_block = s.any && (s.other_block || !same_block);
        s.other_warp = since && (s.other_warp || !same_warp);
        s.other_lane = lanes && (s.other_lane || s.last.thread != now.thread);
        s.any = true;
        s.last = now;
        s.line = line;
    }

  private:
    Seen seen[N_ACCESSES];

    static Who by_whom(const Seen& s, const Moment& now) {
        if (s.last.block != now.block || s.other_block) return BLOCK;
        if (s.last.barriers != now.barriers) return NOBODY;
        if (s.last.thread / WARP != now.thread / WARP) return LAST;
        if (s.other_warp) return ANOTHER;
        if (s.last.warp_barriers != now.warp_barriers) return NOBODY;
        if (s.last.thread != now.thread) return LAST;
        return s.other_lane ? ANOTHER : NOBODY;
    }
};

class Races {
    static constexpr size_t MOST_TOLD = 8;
    std::vector<std::pair<i32, i32>> lines;  // of what was told

  public:
    std::string told;  // the first of each pair of lines

    void look(Word* word, u64 bytes, Access access, const Moment& now, i32 line) {
        for (u64 w = 0; w < (bytes + 3) / 4; w++, word++) {
            Access with = PLAIN_READ;
            Who who = NOBODY;
            if (const Word::Seen* other = word->conflict(access, now, &with, &who))
                if (is_new(line, other->line)) tell(access, now, line, with, who, *other);
            word->add(access, now, line);
        }
    }

  private:
    bool is_new(i32 line, i32 other) {
        if (lines.size() == MOST_TOLD) return false;
        for (const auto& pair : lines)
            if (pair.first == line && pair.second == other) return false;
        lines.emplace_back(line, other);
        return true;
    }

    void tell(Access access, const Moment& now, i32 line, Access with, Who who,
              const Word::Seen& other) {
        char name[48], text[256];
        if (who == LAST) snprintf(name, sizeof name, "thread %u", unsigned(other.last.thread));
        else snprintf(name, sizeof name, who == BLOCK ? "another block" : "another thread");
        snprintf(text, sizeof text, "%sblock %u, thread %u, line %d: %s what %s %s at line %d",
                 told.empty() ? "" : "\n", now.block, unsigned(now.thread), line, DOES[access],
                 name, DONE[with], other.line);
        told += text;
    }
};

}  // namespace
