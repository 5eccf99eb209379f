// A sequence that was saved and gone on from, in another session or another process, computes the
// same logits as one that nobody disturbed, bit for bit.
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/generator.h"
#include "engine/running_text.h"
#include "tests/engine/daemon_parity_support.h"
#include "tests/support/raw_client.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kvasir::testing::RawCalls;
using ::testing::HasSubstr;

constexpr uint32_t kBatch = 24;
constexpr size_t kTokens = 700;

class ResumeParity : public DaemonParity {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
  }

  KvasirStoreOptions Options(const std::string& retention) const {
    KvasirStoreOptions options;
    options.connect = MakeConnectOptions();
    options.kv_type = kernels::RowType::kF32;
    options.retention = retention;
    options.expanded_weights = true;
    return options;
  }
  std::unique_ptr<KvasirKvStore> Open(const KvasirStoreOptions& options) {
    return ValueOrDie(KvasirKvStore::Create(*model_, *tokenizer_, options));
  }
};

class ResumeParityOf : public ResumeParity, public ::testing::WithParamInterface<const char*> {};

TEST_P(ResumeParityOf, LogitsAreThoseOfASequenceThatNobodyDisturbed) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  // Rows that all stay as written are sealed when they are saved: the same bytes in other runs, so
  // that sums over them are rounded elsewhere.
  const std::string retention = GetParam();
  const bool seals = retention.starts_with("full") && retention.find('+') == std::string::npos;
  for (const size_t rows : {size_t{77}, size_t{256}, size_t{433}}) {
    SCOPED_TRACE(fmt::format("rows {}", rows));
    const auto reference = Open(Options(GetParam()));
    (void)ComputeAll(*engine_, *reference, std::span(tokens).first(rows), kBatch);
    KvasirStoreOptions options = Options("");
    {
      const auto saved = Open(Options(GetParam()));
      (void)ComputeAll(*engine_, *saved, std::span(tokens).first(rows), kBatch);
      const KvSnapshot snapshot = ValueOrDie(saved->Save());
      EXPECT_EQ(snapshot.rows, rows);
      options.snapshot = snapshot.id;
    }  // its session ends
    const auto resumed = Open(options);
    ASSERT_EQ(resumed->rows(), rows);
    const auto rest = std::span(tokens).subspan(rows);
    for (const auto& [first, count, batch] :
         {std::tuple{size_t{0}, size_t{60}, 1U}, {size_t{60}, rest.size() - 60, kBatch}}) {
      const auto part = rest.subspan(first, count);
      const std::vector<float> expected = ComputeAll(*engine_, *reference, part, batch);
      const std::vector<float> logits = ComputeAll(*engine_, *resumed, part, batch);
      if (!seals) {
        ASSERT_EQ(logits, expected) << "from row " << first;
        continue;
      }
      ASSERT_EQ(logits.size(), expected.size());
      for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-3) << i;
    }
    ASSERT_TRUE(resumed->DropSnapshot(options.snapshot).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ResumeParityOf,
    ::testing::Values("full", "streamingllm:start_size=4,recent_size=60",
                      "sepllm:form=static,init_cache_size=4,local_size=64",
                      "sepllm:form=sepcache,init_cache_size=3,sep_cache_size=12,local_size=40,"
                      "cache_size=96",
                      "full+int8", "full:positions=unrotated",
                      "sinks:size=4|stride:size=2|window:size=48+int8:rows=32",
                      "knorm:max_capacity=90,recent_size=8,evict_interval=16+as_written/rot3"));

// kvasir-generate as a process of its own.
class SuspendedProgram : public ResumeParity {
 protected:
  struct Outcome {
    int exit_code = -1;
    std::string out, errors;
  };
  Outcome Run(const std::string& arguments,
              const std::string& rows = "--weights f32 --kv-type f32") const {
    const std::string errors = folder_.path() + "/errors";
    const std::string command = fmt::format(
        "{} --socket {}/control.sock --data-socket {}/data.sock -m {} {} -o json {} 2>{}",
        KVASIR_GENERATE_PROGRAM, folder_.path(), folder_.path(), kTinyModel, rows, arguments,
        errors);
    FILE* const pipe = ::popen(command.c_str(), "r");
    Outcome outcome;
    char buffer[4096];
    size_t bytes = 0;
    while ((bytes = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0) {
      outcome.out.append(buffer, bytes);
    }
    const int status = ::pclose(pipe);
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::ifstream in(errors);
    outcome.errors.assign(std::istreambuf_iterator<char>(in), {});
    return outcome;
  }
  std::string file() const { return folder_.path() + "/suspended.json"; }
  nlohmann::json File() const { return nlohmann::json::parse(std::ifstream(file())); }
  void Drop() {
    const auto store = Open(Options("full"));
    const SuspendedText text = ValueOrDie(ReadSuspendedText(file(), tokenizer_->vocabulary()));
    EXPECT_TRUE(store->DropSnapshot(text.snapshot_id).ok());
  }
};

TEST_F(SuspendedProgram, ATextGoesOnInAnotherProcess) {
  const char* retention = "streamingllm:start_size=4,recent_size=60";
  const auto store = Open(Options(retention));
  Generator generator(*engine_, *tokenizer_, *store, 256);
  RunningText text(*tokenizer_, false, "");
  std::vector<std::vector<uint32_t>> expected;
  for (const char* input : {"In the beginning", " And the king", " Then"}) {
    bool anew = false;
    const std::vector<uint32_t> tokens = ValueOrDie(text.Next(input, &anew));
    GenerateOptions options;
    options.tokens_max = 40;
    options.stop_at_end = false;
    const GenerateResult result = ValueOrDie(generator.Generate(tokens, options, {}, {}));
    text.Add(result);
    expected.push_back(result.tokens);
  }
  const std::string rest = " -n 40 --ignore-end --suspend " + file();
  const Outcome first = Run(fmt::format("-p 'In the beginning' --retention {}{}", retention, rest));
  ASSERT_EQ(first.exit_code, 0) << first.errors;
  EXPECT_EQ(nlohmann::json::parse(first.out)["token_ids"], expected[0]);
  EXPECT_EQ(File()["pending"].size(), 1U);
  EXPECT_EQ(std::filesystem::status(file()).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const Outcome second = Run("-p ' And the king' --resume " + file() + rest);
  ASSERT_EQ(second.exit_code, 0) << second.errors;
  EXPECT_EQ(nlohmann::json::parse(second.out)["token_ids"], expected[1]);
  EXPECT_EQ(server_->Snapshot().tenants[0].snapshots, 1U);  // the first one is out of date
  for (int i = 0; i < 2; ++i) {                             // as often as one likes
    const Outcome third = Run("-p ' Then' -n 40 --ignore-end --resume " + file());
    ASSERT_EQ(third.exit_code, 0) << third.errors;
    EXPECT_EQ(nlohmann::json::parse(third.out)["token_ids"], expected[2]);
  }
  Drop();
}

// A second process computes only what the first one has not left in the daemon.
TEST_F(SuspendedProgram, APromptIsSharedWithTheNextProcess) {
  std::string prompt =
      "In the beginning God created the heaven and the earth, and the spirit of God";
  prompt += " moved upon the face of the waters. And God said, Let there be light";
  for (const char* retention : {"full", "streamingllm:start_size=4,recent_size=60"}) {
    const std::string arguments =
        fmt::format("-p '{}' -n 12 --ignore-end --retention {}", prompt, retention);
    const Outcome alone = Run(arguments);
    ASSERT_EQ(alone.exit_code, 0) << alone.errors;
    const nlohmann::json expected = nlohmann::json::parse(alone.out);
    EXPECT_EQ(expected["cached_tokens"], 0);
    for (const bool second : {false, true}) {
      const Outcome shared = Run(arguments + " --share");
      ASSERT_EQ(shared.exit_code, 0) << shared.errors;
      const nlohmann::json json = nlohmann::json::parse(shared.out);
      EXPECT_EQ(json["token_ids"], expected["token_ids"]);
      const auto cached = json["cached_tokens"].get<uint64_t>();
      const auto tokens = expected["prompt_tokens"].get<uint64_t>();
      if (second) {
        EXPECT_GE(cached + 16, tokens);
      } else {
        EXPECT_EQ(cached, 0U);
      }
      EXPECT_EQ(json["prompt_tokens"], tokens - cached);
    }
  }
  EXPECT_EQ(Run("-p 'In the beginning' --share --resume x").exit_code, 2);
  RawCalls calls(folder_.path() + "/control.sock", std::string(32, '0'));
  v1::DropPrefixesResponse dropped;
  ASSERT_TRUE(
      calls.CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &dropped).ok());
  EXPECT_EQ(dropped.dropped(), 2U);
}

// What the command line says of the engine's speed decides where the tier's is known.
TEST_F(SuspendedProgram, APromptOnDiskIsComputedWhereThatIsSaidToBeFaster) {
  kvasir::Config config = MakeConfig();
  config.tier.disk_path = folder_.path() + "/tier";
  config.tier.disk_bytes = config.tenants[0].disk_bytes = 64 * kMiB;
  StartServer(config);
  const auto prompt = [](const std::string& who) {
    return fmt::format(
        "-p 'And {} said unto the people, Let us go up to the mountain, and let us "
        "dwell there for ever' -n 8 --ignore-end --retention full --share",
        who);
  };
  const auto generate = [&](const std::string& arguments) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    return outcome.exit_code == 0 ? nlohmann::json::parse(outcome.out) : nlohmann::json();
  };
  (void)generate(prompt("the king"));
  const nlohmann::json computed = generate(prompt("a woman"));
  EXPECT_EQ(computed["cached_tokens"], 0);
  StartServer(config);  // what the last one had lies on disk alone
  const std::string fast = " --prefill-rows-per-s 1e12";
  EXPECT_GT(generate(prompt("the king") + fast)["cached_tokens"], 0);  // no speed is known yet
  const nlohmann::json again = generate(prompt("a woman") + fast);
  EXPECT_EQ(again["cached_tokens"], 0);
  EXPECT_EQ(again["token_ids"], computed["token_ids"]);
  RawCalls calls(folder_.path() + "/control.sock", std::string(32, '0'));
  v1::ListTiersResponse tiers;
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::ListTiers, v1::ListTiersRequest(), &tiers).ok());
  EXPECT_EQ(tiers.tiers(0).tenants(0).loads(), 1U);
  EXPECT_EQ(tiers.tiers(0).tenants(0).loads_declined(), 1U);
  v1::DropPrefixesResponse dropped;
  ASSERT_TRUE(
      calls.CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &dropped).ok());
}

TEST_F(SuspendedProgram, WhatDoesNotFitIsRefused) {
  ASSERT_EQ(Run("-p 'In the beginning' -n 8 --suspend " + file()).exit_code, 0);
  nlohmann::json json = File();
  const auto expect = [&](const std::string& arguments, const std::string& text,
                          const std::string& rows = "--weights f32 --kv-type f32") {
    const Outcome outcome = Run("-p ' And' -n 8 --resume " + file() + " " + arguments, rows);
    EXPECT_EQ(outcome.exit_code, 1) << arguments << rows;
    EXPECT_THAT(outcome.errors, HasSubstr(text));
  };
  expect("--retention window:size=9", "made with another retention");
  expect("", "dtype differs", "--weights f32 --kv-type f16");
  expect("", "adapter_digests differs", "--weights as-stored --kv-type f32");
  expect("--chat", "is no chat");
  const std::string whole = json.dump();
  json["rows"] = json["rows"].get<uint64_t>() + 1;
  std::ofstream(file()) << json.dump();
  expect("", "does not fit its snapshot");
  json["snapshot_id"] = std::string(32, 'a');
  std::ofstream(file()) << json.dump();
  expect("", "unknown snapshot");
  std::ofstream(file()) << whole;
  Drop();
}

}  // namespace
}  // namespace kvasir::engine::testing
