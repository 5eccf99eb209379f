// A program that embeds llama.cpp and calls kvasir_llama.h. Usage: embedder_program key=value...,
// beside those of llama_run.h
//   do=save     computes the prompt but its last token, saves it
//   do=attach   attaches what is there of the prompt
//   do=compact  computes the prompt but its last token, leaves what retention=TEXT keeps
//   do=remove   the same with llama_memory_seq_rm() for what is in removed=A,B,...
//   do=select   computes the prompt, and then only what retention=TEXT selects of it, as a prompt
//   do=probe    no more than opening
// and then computes what is missing up to the prompt's last token, and `steps` greedy ones behind
// it, whose logits are those of logits=FILE. salt=TEXT digest=TEXT rows=N: of the call; n_save=N
// saves so many rows. again=N: as many steps before the second of two compactions. listen=N: the
// layer whose query is heard. Says "layout TEXT", "direct 0|1", "rows N", "left P,P,...", "time
// NAME MICROSECONDS", and at the end "done"; "error CODE TEXT" where a call fails.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <span>
#include <sstream>

#include "client/llama_cpp/kvasir_llama.h"
#include "client/llama_cpp/state_layout.h"
#include "tests/llama_cpp/llama_run.h"

namespace kvasir::testing {
namespace {

class Embedder {
 public:
  Embedder(int argc, char** argv)
      : run_({{"do", "probe"},
              {"prompt", "161"},
              {"steps", "8"},
              {"salt", ""},
              {"digest", ""},
              {"retention", "full"},
              {"removed", ""},
              {"removed_again", ""},
              {"other", "-1"},
              {"save_too", "0"},
              {"again", "0"},
              {"listen", "-1"}},
             argc, argv),
        watch_(kvasir_llama_watch_new()) {
    run_.CallBack(kvasir_llama_hear, watch_);
  }
  ~Embedder() {
    kvasir_llama_close(handle_);
    kvasir_llama_watch_free(watch_);
  }
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  int Main() {
    if (!run_.Open()) return 3;
    const std::string& what = run_.Text("do");
    if (what != "remove" && !OpenHandle()) return 6;
    if (what == "probe") return 0;
    tokens_ = run_.Prompt(run_.Number("prompt"));
    if (run_.Number("other") >= 0) tokens_[static_cast<size_t>(run_.Number("other"))] ^= 1;
    if (what == "select" && !Select()) return 6;
    const auto last = static_cast<int32_t>(tokens_.size()) - 1;
    size_t rows = 0;
    if (what == "attach") {
      if (!Call("attach", [&](kvasir_error* error) {
            return kvasir_llama_attach(handle_, 0, tokens_.data(), tokens_.size(), &rows, error);
          })) {
        return 6;
      }
      Tell("rows " + std::to_string(rows));
    }
    if (!Timed("prefill", [&] { return run_.Decode(tokens_, static_cast<int32_t>(rows), last); })) {
      return 4;
    }
    run_.logits().clear();
    if (what == "save" && !Save(last)) return 6;
    if ((what == "compact" || what == "remove") && !Shrink(last, "removed")) return 6;
    if (run_.Text("save_too") == "1" && !Save(last)) return 6;
    if (!Timed("first", [&] { return run_.Decode(tokens_, last, last + 1); })) return 4;
    int32_t at = last + 1;
    for (int32_t step = 0; step < run_.Number("steps"); ++step, ++at) {
      tokens_.push_back(run_.Likeliest());
      if (run_.Number("again") != 0 && step == run_.Number("again") &&
          !Shrink(at, "removed_again")) {
        return 6;
      }
      if (!run_.Decode(tokens_, at, at + 1)) return 4;
    }
    if (!run_.WriteLogits()) return 5;
    Tell("done");
    return 0;
  }

 private:
  bool Timed(const std::string& name, const std::function<bool()>& what) {
    const auto begin = std::chrono::steady_clock::now();
    const bool good = what();
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - begin);
    Tell("time " + name + " " + std::to_string(took.count()));
    return good;
  }

  bool Call(const std::string& name, const std::function<kvasir_code(kvasir_error*)>& call) {
    kvasir_error error{};
    kvasir_code code = KVASIR_OK;
    (void)Timed(name, [&] {
      code = call(&error);
      return true;
    });
    if (code == KVASIR_OK) return true;
    Tell("error " + std::to_string(code) + " " + error.text);
    return false;
  }

  bool OpenHandle() {
    std::vector<uint32_t> separators;  // one token in 13, as in prose
    for (int32_t i = 7; i < 1024; i += 13) {
      separators.push_back(static_cast<uint32_t>(run_.TokenAt(i)));
    }
    std::sort(separators.begin(), separators.end());
    separators.erase(std::unique(separators.begin(), separators.end()), separators.end());
    const std::string &salt = run_.Text("salt"), &digest = run_.Text("digest");
    kvasir_llama_options options{};
    options.struct_size = sizeof(options);
    options.model_path = run_.Text("model").c_str();
    options.weights_digest = {digest.data(), digest.size()};
    options.salt = {salt.data(), salt.size()};
    options.separators = separators.data();
    options.separator_count = separators.size();
    if (!Call("open", [&](kvasir_error* error) {
          return kvasir_llama_open(run_.context(), &options, &handle_, error);
        })) {
      return false;
    }
    Tell(std::string("layout ") + kvasir_llama_layout(handle_));
    Tell("direct " + std::to_string(kvasir_llama_is_direct(handle_)));
    return true;
  }

  // Leaves in tokens_ what is selected of it, and the sequence empty.
  bool Select() {
    const auto count = static_cast<int32_t>(tokens_.size());
    kvasir_llama_listen(watch_, run_.Number("listen"));
    if (!run_.Decode(tokens_, 0, count)) return false;
    std::vector<int32_t> positions(tokens_.size());
    size_t chosen = 0;
    const bool good = Call("select", [&](kvasir_error* error) {
      return kvasir_llama_select(handle_, 0, tokens_.data(), tokens_.size(),
                                 run_.Text("retention").c_str(), watch_, positions.data(),
                                 positions.size(), &chosen, error);
    });
    if (!good) return false;
    llama_memory_seq_rm(llama_get_memory(run_.context()), 0, -1, -1);
    std::vector<llama_token> selected;
    std::string text;
    for (size_t i = 0; i < chosen; ++i) {
      selected.push_back(tokens_[static_cast<size_t>(positions[i])]);
      text += (i > 0 ? "," : "") + std::to_string(positions[i]);
    }
    tokens_ = selected;
    Tell("left " + text);
    return true;
  }

  bool Save(int32_t count) {
    size_t rows = 0;
    const bool good = Call("save", [&](kvasir_error* error) {
      return kvasir_llama_save(handle_, 0, tokens_.data(), static_cast<size_t>(count), &rows,
                               error);
    });
    Tell("rows " + std::to_string(rows));
    return good;
  }

  // Of the first `count` tokens.
  bool Shrink(int32_t count, const std::string& removed_key) {
    if (run_.Text("do") == "compact") {
      size_t left = 0;
      const bool good = Call("compact", [&](kvasir_error* error) {
        return kvasir_llama_compact(handle_, 0, tokens_.data(), static_cast<size_t>(count),
                                    run_.Text("retention").c_str(), &left, error);
      });
      Tell("rows " + std::to_string(left));
      Tell("left " + Positions());
      return good;
    }
    std::istringstream removed(run_.Text(removed_key));
    for (std::string position; std::getline(removed, position, ',');) {
      const int32_t p = std::stoi(position);
      llama_memory_seq_rm(llama_get_memory(run_.context()), 0, p, p + 1);
    }
    return true;
  }

  // Of the cells that llama.cpp has.
  std::string Positions() const {
    std::vector<uint8_t> state(llama_state_seq_get_size(run_.context(), 0));
    llama_state_seq_get_data(run_.context(), state.data(), state.size(), 0);
    const auto layout = llama_cpp::ParseState(std::as_bytes(std::span(state)));
    std::string text;
    for (size_t i = 0; layout && i < layout->positions.size(); ++i) {
      text += (i > 0 ? "," : "") + std::to_string(layout->positions[i]);
    }
    return text;
  }

  LlamaRun run_;
  kvasir_llama_watch* const watch_;
  kvasir_llama* handle_ = nullptr;
  std::vector<llama_token> tokens_;
};

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) { return kvasir::testing::Embedder(argc, argv).Main(); }
