// Memory of a launch: arrays of the device, what a block shares, and what a thread has for itself.
#pragma once

#include <vector>

#include "races.h"
#include "requests.h"

namespace {

class Memory {
    const Launch& launch;
    std::vector<char> shared, local;
    size_t last_range = 0;
    std::vector<u64> first_sector;  // of each array, among those of all
    std::vector<bool> read, written;  // sectors
    std::vector<Word> global_words, shared_words;

  public:
    Races races;

    explicit Memory(const Launch& l)
        : launch(l), shared(size_t(l.shared_bytes)), local(size_t(l.threads * l.local_bytes)) {
        u64 n = 0;
        for (i64 r = 0; r < l.n_ranges; r++) {
            first_sector.push_back(n);
            n += (l.ranges[r].end + SECTOR - 1) / SECTOR - l.ranges[r].begin / SECTOR;
        }
        read.resize(n);
        written.resize(n);
        if (l.watch_races) {
            global_words.resize(n * (SECTOR / 4));
            shared_words.resize(size_t(l.shared_bytes + 3) / 4);
        }
    }

    // Shared memory of the next block: full of garbage, and nobody was there.
    void next_block() {
        for (char& byte : shared) byte = char(0xA5);
        shared_words.assign(shared_words.size(), Word{});
    }

    void total() const {
        for (const bool sector : read) launch.totals[READ] += sector;
        for (const bool sector : written) launch.totals[WRITTEN] += sector;
    }

    // Where the bytes are on the host. Fails if they are not all in one array, or not aligned.
    char* at(const Instruction& i, u64 address, u64 bytes, const Moment& now) {
        if (address % bytes)
            fail(launch, "block %u, thread %u, line %d: %llu bytes at %#llx are not aligned",
                 now.block, unsigned(now.thread), i.line, (unsigned long long)bytes,
                 (unsigned long long)address);
        if (i.space == GLOBAL) {
            const size_t r = range_of(i, address, bytes, now);
            const u64 sector =
                first_sector[r] + address / SECTOR - launch.ranges[r].begin / SECTOR;
            if (i.kind != STORE) read[sector] = true;
            if (i.kind != LOAD) written[sector] = true;
            if (launch.watch_races)
                look(&global_words[sector * (SECTOR / 4) + address % SECTOR / 4], i, bytes, now);
            return reinterpret_cast<char*>(address);
        }
        const u64 size = u64(i.space == SHARED ? launch.shared_bytes : launch.local_bytes);
        if (address >= size || address + bytes > size)
            fail(launch,
                 "block %u, thread %u, line %d: %llu bytes at %#llx are beyond the %llu of %s memory",
                 now.block, unsigned(now.thread), i.line, (unsigned long long)bytes,
                 (unsigned long long)address, (unsigned long long)size,
                 i.space == SHARED ? "shared" : "local");
        if (i.space == LOCAL) return &local[now.thread * size + address];
        if (launch.watch_races) look(&shared_words[address / 4], i, bytes, now);
        return &shared[address];
    }

  private:
    void look(Word* word, const Instruction& i, u64 bytes, const Moment& now) {
        const Access access = i.kind == ATOMIC             ? ATOMIC_UPDATE
                              : i.kind == STORE            ? PLAIN_WRITE
                              : i.flags & IS_VOLATILE      ? VOLATILE_READ
                                                           : PLAIN_READ;
        races.look(word, bytes, access, now, i.line);
    }

    size_t range_of(const Instruction& i, u64 address, u64 bytes, const Moment& now) {
        if (!contains(last_range, address, bytes)) {
            size_t low = 0, high = size_t(launch.n_ranges);
            while (low < high) {
                const size_t middle = (low + high) / 2;
                if (launch.ranges[middle].end <= address) low = middle + 1;
                else high = middle;
            }
            if (!contains(low, address, bytes))
                fail(launch, "block %u, thread %u, line %d: %llu bytes at %#llx are in no array",
                     now.block, unsigned(now.thread), i.line, (unsigned long long)bytes,
                     (unsigned long long)address);
            last_range = low;
        }
        return last_range;
    }

    bool contains(size_t range, u64 address, u64 bytes) const {
        return range < size_t(launch.n_ranges) && address >= launch.ranges[range].begin &&
               address + bytes <= launch.ranges[range].end;
    }
};

}  // namespace
