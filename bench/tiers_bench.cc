// bench_tiers: bytes per second of each tier beside what its place gives without one: memcpy for
// host memory, fio on a file of the same folder for the disk, redis-benchmark for a server.
//
// Tier and yardstick run in turn, in changing order, over the same number of bytes; each ratio is
// the median over the rounds with its 95% interval. Reads verify every block's checksum, as always.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "allocator/tier/disk_tier.h"
#include "allocator/tier/host_tier.h"
#include "allocator/tier/remote_tier.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "bench/redis_server.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "bench/tier_yardsticks.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <stdlib.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kFingerprint = 1;
constexpr uint32_t kDepth = 8;
constexpr uint64_t kSizes[] = {256 * kKiB, 1'478'656,
                               4 * kMiB};  // the second: SmolLM2-135M's group

struct Options {
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string json = "build/bench/tiers.json";
  std::string only;
  uint32_t rounds = 11;
  uint64_t mebibytes = 1024;  // of a round
};

double Seconds(const std::function<void()>& work) {
  const auto since = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

template <typename T>
T Must(absl::StatusOr<T> value) {
  KVASIR_CHECK(value.ok(), "bench: {}", MessageOf(value.status()));
  return *std::move(value);
}
void Must(const absl::Status& status) { KVASIR_CHECK(status.ok(), "bench: {}", MessageOf(status)); }

// Memory that begins at a page, touched.
class Pages {
 public:
  explicit Pages(uint64_t bytes)
      : data_(static_cast<std::byte*>(::aligned_alloc(kPageBytes, RoundUp(bytes, kPageBytes)))) {
    KVASIR_CHECK(data_ != nullptr, "no memory: bytes={}", bytes);
    std::mt19937_64 random(1);
    for (uint64_t at = 0; at + 8 <= bytes; at += 8) {
      const uint64_t word = random();
      std::memcpy(data_ + at, &word, 8);
    }
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { ::free(data_); }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_;
};

// `count` blocks of one size, in memory of their own, and as many to read into.
class Blocks {
 public:
  Blocks(uint64_t bytes, uint64_t total) : bytes_(bytes), count_(total / bytes) {
    from_ = std::make_unique<Pages>(total);
    into_ = std::make_unique<Pages>(total);
    for (uint64_t i = 0; i < count_; ++i) {
      TierKey key;
      std::memcpy(key.bytes.data(), &i, sizeof(i));
      keys_.push_back(key);
      parts_.emplace_back(from_->data() + i * bytes, bytes);
      reads_.push_back({key, {into_->data() + i * bytes, bytes}});
    }
    for (uint64_t i = 0; i < count_; ++i) writes_.push_back({keys_[i], std::span(&parts_[i], 1)});
  }

  void Write(Tier& tier) const {
    std::vector<absl::Status> results(count_);
    tier.Write(writes_, results);
    for (const absl::Status& status : results) Must(status);
  }
  void Read(Tier& tier) const {
    std::vector<ReadOutcome> results(count_);
    tier.Read(reads_, results);
    for (const ReadOutcome outcome : results) {
      KVASIR_CHECK(outcome == ReadOutcome::kHit, "a read is no hit: {}", NameOf(outcome));
    }
  }
  void Copy() const {
    for (uint64_t i = 0; i < count_; ++i) {
      std::memcpy(into_->data() + i * bytes_, from_->data() + i * bytes_, bytes_);
    }
  }
  uint64_t bytes() const { return bytes_; }
  uint64_t count() const { return count_; }
  double total() const { return static_cast<double>(bytes_ * count_); }
  std::span<const TierKey> keys() const { return keys_; }
  std::span<const std::byte> first() const { return parts_[0]; }
  std::span<std::byte> first_into() const { return reads_[0].into; }

 private:
  uint64_t bytes_, count_;
  std::unique_ptr<Pages> from_, into_;
  std::vector<TierKey> keys_;
  std::vector<std::span<const std::byte>> parts_;
  std::vector<WriteItem> writes_;
  std::vector<ReadItem> reads_;
};

// One thing that is measured, in bytes per second.
using Measure = std::function<double()>;

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  void Run() {
    for (const uint64_t bytes : kSizes) {
      const Blocks blocks(bytes, options_.mebibytes * kMiB);
      if (Wanted("host")) Host(blocks);
      if (Wanted("disk")) Disk(blocks);
      if (Wanted("blobs")) Blobs(blocks);
      if (Wanted("remote")) Remote(blocks);
    }
  }
  const Report& report() const { return report_; }

 private:
  bool Wanted(const std::string& place) const {
    return options_.only.empty() || options_.only == place;
  }

  void Compare(const std::string& name, const std::string& against, const std::string& goal,
               const Measure& tier, const Measure& yardstick) {
    std::vector<double> values, ratios;
    for (uint32_t round = 0; round <= options_.rounds; ++round) {
      double speed[2];
      for (const uint32_t turn : {round % 2, (round + 1) % 2}) {
        speed[turn] = turn == 0 ? tier() : yardstick();
      }
      if (round == 0) continue;  // pages and files are touched first
      values.push_back(speed[0]);
      ratios.push_back(speed[0] / speed[1]);
    }
    const MedianInterval ratio = MedianOf(ratios);
    Row row;
    row.name = name;
    row.value = MedianOf(values).median * 1e-9;
    row.unit = "GB/s";
    row.reference = row.value / ratio.median;
    row.better = Better::kHigher;
    row.goal = goal;
    row.extra = {{"reference_name", against},
                 {"ratio_low", ratio.low},
                 {"ratio_high", ratio.high},
                 {"rounds", options_.rounds}};
    std::fprintf(stderr, "%s: %.2f GB/s, %.2f of %s\n", name.c_str(), row.value, ratio.median,
                 against.c_str());
    report_.Add(row);
  }

  // Bytes per second of writing every block into a tier that has none of them.
  static Measure Writes(Tier& tier, const Blocks& blocks) {
    return [&tier, &blocks] {
      Must(tier.Erase(blocks.keys()));
      return blocks.total() / Seconds([&] { blocks.Write(tier); });
    };
  }
  static Measure Reads(Tier& tier, const Blocks& blocks) {
    return [&tier, &blocks] { return blocks.total() / Seconds([&] { blocks.Read(tier); }); };
  }

  void Host(const Blocks& blocks) {
    HostTierOptions options;
    options.capacity_bytes = RoundUp(2 * options_.mebibytes * kMiB, options.chunk_bytes);
    options.fingerprint = kFingerprint;
    options.use.touch = true;
    const auto tier = Must(HostTier::Create(options));
    const Measure copy = [&] { return blocks.total() / Seconds([&] { blocks.Copy(); }); };
    Compare(fmt::format("host/write/{}", blocks.bytes()), "memcpy", "", Writes(*tier, blocks),
            copy);
    Compare(fmt::format("host/read/{}", blocks.bytes()), "memcpy", "", Reads(*tier, blocks), copy);
  }

  void Disk(const Blocks& blocks) {
    const std::string folder = options_.folder + "/disk", file = options_.folder + "/fio";
    {
      DiskTierOptions options;
      options.path = folder;
      options.capacity_bytes = RoundUp(options_.mebibytes * kMiB * 5 / 4, kGiB / 4);
      options.segment_bytes = kGiB / 4;
      options.fingerprint = kFingerprint;
      options.blocks_in_flight = kDepth;
      const auto tier = Must(DiskTier::Open(options, MakeSystemIo()));
      // Every unit once, as fio's file is: the first write of a preallocated block costs more.
      for (int i = 0; i < 3; ++i) (void)Writes(*tier, blocks)();
      for (const bool write : {true, false}) {
        const Measure fio = [&] {
          return Must(
              FioBytesPerSecond(file, write, blocks.bytes(), options_.mebibytes * kMiB, kDepth));
        };
        (void)fio();
        Compare(fmt::format("disk/{}/{}", write ? "write" : "read", blocks.bytes()), "fio",
                "ratio >= 0.8", write ? Writes(*tier, blocks) : Reads(*tier, blocks), fio);
      }
      const uint64_t before = DiskBytesWritten();
      for (int i = 0; i < 4; ++i) (void)Writes(*tier, blocks)();
      AddRewrite("disk", blocks, DiskBytesWritten() - before, *tier->Stats().held_bytes);
    }
    std::filesystem::remove_all(folder);
    std::filesystem::remove(file);
  }

  // After every block was written anew four times.
  void AddRewrite(const std::string& place, const Blocks& blocks, uint64_t written,
                  uint64_t space) {
    Row row;
    row.name = fmt::format("{}/rewrite/{}", place, blocks.bytes());
    row.value = static_cast<double>(written) / (4 * blocks.total());
    row.unit = "bytes written a byte";
    row.extra = {{"space_a_byte", static_cast<double>(space) / blocks.total()}};
    report_.Add(row);
  }

  // The other way to keep blocks in RocksDB: why it was not taken (ADR 14).
  void Blobs(const Blocks& blocks) {
    const std::string folder = options_.folder + "/blobs", file = options_.folder + "/fio";
    {
      const auto store = Must(BlobStore::Open(folder));
      const Measure writes = [&] {
        Must(store->Erase(blocks.keys()));
        return blocks.total() / Seconds([&] { Must(store->Write(blocks.keys(), blocks.first())); });
      };
      const Measure reads = [&] {
        return blocks.total() /
               Seconds([&] { Must(store->Read(blocks.keys(), blocks.first_into())); });
      };
      for (const bool write : {true, false}) {
        const Measure fio = [&] {
          return Must(
              FioBytesPerSecond(file, write, blocks.bytes(), options_.mebibytes * kMiB, kDepth));
        };
        Compare(fmt::format("blobs/{}/{}", write ? "write" : "read", blocks.bytes()), "fio", "",
                write ? writes : reads, fio);
      }
      // Blocks are written anew, a quarter at a time, as in a cache; collection as it comes.
      const uint64_t before = DiskBytesWritten();
      for (size_t quarter = 0; quarter < 16; ++quarter) {
        std::vector<TierKey> keys;
        for (size_t i = quarter % 4; i < blocks.count(); i += 4) keys.push_back(blocks.keys()[i]);
        Must(store->Write(keys, blocks.first()));
      }
      AddRewrite("blobs", blocks, DiskBytesWritten() - before, store->FileBytes());
    }
    std::filesystem::remove_all(folder);
    std::filesystem::remove(file);
  }

  void Remote(const Blocks& blocks) {
    const auto server = Must(RedisServer::Start({}));
    const auto other = Must(RedisServer::Start({}));  // the yardstick's keys are its own
    RemoteTierOptions options;
    options.server.unix_path = server->socket();
    options.fingerprint = kFingerprint;
    options.batch_timeout = std::chrono::minutes(5);
    options.requests_in_flight = kDepth;
    const auto tier = Must(RemoteTier::Create(options));
    const auto benchmark = [&](bool write) {
      return Must(RedisBenchmarkBytesPerSecond(other->socket(), write, blocks.bytes(),
                                               blocks.count(), kDepth));
    };
    for (const bool write : {true, false}) {
      // Both write what is not there yet (to write over a key gives the server memory that it has
      // touched), and both read what is there: random keys leave e^-8 of them out.
      for (int i = 0; !write && i < 8; ++i) (void)benchmark(true);
      const Measure yardstick = [&] {
        if (write) Must(EmptyServer(other->socket()));
        return benchmark(write);
      };
      Compare(fmt::format("remote/{}/{}", write ? "write" : "read", blocks.bytes()),
              "redis-benchmark", "ratio >= 0.7",
              write ? Writes(*tier, blocks) : Reads(*tier, blocks), yardstick);
    }
    std::vector<std::string> names;
    for (const TierKey& key : blocks.keys()) {
      names.push_back(fmt::format("kvasir:{:016x}:", kFingerprint) + std::string(key.view()));
    }
    Compare(fmt::format("remote/read/{}/hiredis", blocks.bytes()), "hiredis's reader", "",
            Reads(*tier, blocks),
            [&] { return Must(HiredisReadBytesPerSecond(server->socket(), names, kDepth)); });
  }

  const Options options_;
  Report report_;
};

int Main(int argc, char** argv) {
  Options options;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("bytes per second of tiers beside what their places give");
  app.add_option("--folder", options.folder, "where the disk tier and fio's file are made");
  app.add_option("--only", options.only, "host, disk, blobs or remote");
  app.add_option("--rounds", options.rounds, "pairs of measurements")->check(CLI::Range(1, 1000));
  app.add_option("--mebibytes", options.mebibytes, "payload of a round")
      ->check(CLI::Range(64, 16384));
  CLI11_PARSE(app, argc, argv);
  spdlog::set_level(spdlog::level::warn);
  options.folder += "/kvasir-bench-XXXXXX";
  KVASIR_CHECK(::mkdtemp(options.folder.data()) != nullptr, "mkdtemp of {}", options.folder);
  Bench bench(options);
  bench.Run();
  std::filesystem::remove_all(options.folder);
  std::fputs(bench.report().ToTable().c_str(), stdout);
  Must(bench.report().Write(options.json));
  return 0;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
