// EmbedderFixture: runs embedder_program beside a daemon.
#ifndef KVASIR_TESTS_LLAMA_CPP_EMBEDDER_FIXTURE_H_
#define KVASIR_TESTS_LLAMA_CPP_EMBEDDER_FIXTURE_H_

#include <set>
#include <string>
#include <vector>

#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {

class EmbedderFixture : public DaemonFixture {
 protected:
  struct Said {
    int status = 0;
    std::vector<std::string> lines;
    std::string errors;  // the last part of them

    // What follows `key` in its `nth` line; "": there is none.
    std::string Of(const std::string& key, size_t nth = 0) const;
  };

  // `direct`: with the plug-in.
  Said Run(std::vector<std::string> options, bool direct) const;
  // Logits of the steps of a run, which has to end well.
  std::vector<float> Logits(std::vector<std::string> options, bool direct, Said* said = nullptr);

  // Drops what was published, so that nothing is left.
  void TearDown() override;

  std::string model_ = "tests/data/tinylm/model.gguf";
};

// Of "1,2,3".
std::set<int> Numbers(const std::string& text);
// Positions below `end` that are not in `left`, as Numbers() reads them.
std::string Others(const std::set<int>& left, int end);
double Largest(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_LLAMA_CPP_EMBEDDER_FIXTURE_H_
