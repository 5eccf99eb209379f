// Engines that publish prompts and go on from them, over the sockets of a daemon in this process.
#ifndef KVASIR_TESTS_INTEGRATION_PREFIX_ENGINES_H_
#define KVASIR_TESTS_INTEGRATION_PREFIX_ENGINES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {

inline constexpr uint32_t kLayers = 3;

// Every prompt begins like all others.
inline std::vector<uint32_t> PromptTokens(uint64_t count) {
  std::vector<uint32_t> tokens;
  for (uint64_t i = 0; i < count; ++i) tokens.push_back(5 + static_cast<uint32_t>(i * i % 900));
  return tokens;
}

class PrefixDaemonTest : public DaemonFixture {
 protected:
  struct Engine {
    std::unique_ptr<Session> session;
    ModelHandle model;
  };
  // `rank`: another one has other weights.
  Engine MakeEngine(uint32_t rank = 0) {
    Engine engine{Connect(), {}};
    absl::StatusOr<ModelHandle> model = engine.session->RegisterModel(ShardSpec(rank));
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    if (model.ok()) engine.model = *model;
    return engine;
  }

  static ModelSpec ShardSpec(uint32_t rank) {
    ModelSpec spec = TinySpec(kLayers);
    spec.weights_digest[0] = static_cast<char>('A' + rank);
    return spec;
  }

  void TearDown() override {
    Drop();
    DaemonFixture::TearDown();
  }

  void Drop() {
    v1::DropPrefixesResponse response;
    EXPECT_TRUE(Calls()
                    .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
                    .ok());
  }

  RawCalls Calls() { return RawCalls(folder_.path() + "/control.sock", std::string(32, '0')); }

  static std::vector<uint32_t> Tokens(uint64_t count) { return PromptTokens(count); }

  static OpenOptions With(const Engine& engine, const std::string& retention,
                          std::vector<uint32_t> tokens) {
    OpenOptions options;
    options.model = engine.model;
    options.retention = retention;
    options.prefix = PrefixOptions{};
    options.prefix->tokens = std::move(tokens);
    return options;
  }

  // Writes the rows that the sequence does not have yet.
  static void Write(Sequence& sequence, const std::vector<uint32_t>& tokens) {
    const ModelSpec spec = TinySpec(kLayers);
    while (sequence.rows() < tokens.size()) {
      absl::StatusOr<StepView> step =
          sequence.Begin(static_cast<uint32_t>(tokens.size() - sequence.rows()));
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, spec);
      const absl::Status committed =
          sequence.Commit(std::span(tokens).subspan(step->row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
  }

  void Store(const Engine& engine, const std::string& retention,
             const std::vector<uint32_t>& tokens) {
    absl::StatusOr<Sequence> sequence =
        engine.session->OpenSequence(With(engine, retention, tokens));
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    Write(*sequence, tokens);
    const absl::StatusOr<Sequence::Published> published = sequence->PublishPrefix();
    ASSERT_TRUE(published.ok()) << MessageOf(published.status());
    EXPECT_EQ(published->rows, tokens.size());
  }
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_PREFIX_ENGINES_H_
